// Update of the token tables: which tokens are new in each stage of a chunk, gathering and storing them.
//
// Tests compare this with the PyTorch implementation in features.py.
// Notation: K frames per stream, S streams, N patches per stage, R changed patches in total. Index: position in (K, S, N).

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

// Plans one stage: marks (K, S, N) -> indices (R,) of the marked patches; newest (K, S, N): number of the latest new
// token, or -1 if the table is up to date; above (K, S, N / merge): whether any of `merge` patches is marked; active
// (K, S): number of marked patches per frame, with stride `stages`. Returns R.
int64_t plan(const uint8_t* marks, int64_t k_frames, int64_t streams, int64_t patches, int64_t merge, int64_t* indices,
             int32_t* newest, uint8_t* above, int64_t* active, int64_t stages) {
  int64_t rows = 0, images = k_frames * streams;
  for (int64_t image = 0; image < images; image++) {
    int64_t before = rows, index = image * patches;
    const int32_t* held = image < streams ? nullptr : newest + (image - streams) * patches;
    for (int64_t p = 0; p < patches; p++, index++) {
      newest[index] = held ? held[p] : -1;
      if (marks[index]) {
        newest[index] = rows;
        indices[rows++] = index;
      }
    }
    active[image * stages] = rows - before;
  }
  for (int64_t i = 0; i < images * patches / merge; i++)
    above[i] = std::any_of(marks + i * merge, marks + (i + 1) * merge, [](uint8_t mark) { return mark != 0; });
  return rows;
}

}  // namespace

extern "C" {

struct Tokens {  // of one stage; table: (slots, patches, width); tokens: R rows with stride `stride`
  float *tokens, *table;
  int64_t stride, width, streams, patches;
  const int64_t* slots;
};

// Plans all stages. marks (K, S, patches[0]) is overwritten; patches and merges have one value per stage. indices and
// newest hold K S patches[stage] elements per stage, one stage after the other; rows: R of each stage; active
// (K, S, stages).
void plan_stages(uint8_t* marks, int64_t k_frames, int64_t streams, int64_t stages, const int64_t* patches,
                 const int64_t* merges, int64_t* indices, int32_t* newest, int64_t* active, int64_t* rows) {
  for (int64_t stage = 0; stage < stages; stage++) {
    rows[stage] = plan(marks, k_frames, streams, patches[stage], merges[stage], indices, newest, marks, active + stage,
                       stages);
    indices += k_frames * streams * patches[stage];
    newest += k_frames * streams * patches[stage];
  }
}

// Concatenates the latest tokens of `merge` patches, for `rows` indices into (K, S, patches / merge) -> out.
// newest (K, S, patches): as planned.
void gather(const Tokens* of, const int32_t* newest, const int64_t* indices, int64_t rows, int64_t merge, float* out,
            int threads) {
  const int64_t width = of->width;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * merge * width > 100000)
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t child = indices[r] * merge; child < (indices[r] + 1) * merge; child++) {
      int64_t slot = of->slots[child / of->patches % of->streams];
      const float* from = newest[child] >= 0 ? of->tokens + newest[child] * of->stride
                                             : of->table + (slot * of->patches + child % of->patches) * width;
      std::memcpy(out + (r * merge + child % merge) * width, from, width * sizeof(float));
    }
  }
}

// Writes the latest tokens after the last frame of a chunk to the table. newest (S, patches): of that frame.
void store(const Tokens* of, const int32_t* newest) {
  for (int64_t s = 0; s < of->streams; s++)
    for (int64_t p = 0; p < of->patches; p++, newest++)
      if (*newest >= 0)
        std::memcpy(of->table + (of->slots[s] * of->patches + p) * of->width, of->tokens + *newest * of->stride,
                    of->width * sizeof(float));
}
}
