// Which tokens are new and which hold, for all stages of a chunk, and gathering them.
//
// features.py has the plain PyTorch counterpart that the tests compare these with. K frames of each of S streams,
// N patches of a stage, R of the K S N changed.

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

// One stage: marks (K, S, N) -> places (R,) of the marks, newest (K, S, N): the row of R that holds there, -1: the
// table's; above (K, S, N / merge): whether any of `merge` patches is marked; active (K, S): marks of a frame, every
// `stages` numbers. Returns R.
int64_t plan(const uint8_t* marks, int64_t k_frames, int64_t streams, int64_t patches, int64_t merge, int64_t* places,
             int32_t* newest, uint8_t* above, int64_t* active, int64_t stages) {
  int64_t rows = 0, images = k_frames * streams;
  for (int64_t image = 0; image < images; image++) {
    int64_t before = rows, place = image * patches;
    const int32_t* held = image < streams ? nullptr : newest + (image - streams) * patches;
    for (int64_t p = 0; p < patches; p++, place++) {
      newest[place] = held ? held[p] : -1;
      if (marks[place]) {
        newest[place] = rows;
        places[rows++] = place;
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

struct Tokens {  // of one stage; table: rows of (slots, patches), `width` numbers each; tokens: R rows, `stride` apart
  float *tokens, *table;
  int64_t stride, width, streams, patches;
  const int64_t* slots;
};

// Plans all stages. marks (K, S, patches[0]), which is overwritten; patches, merges: of each stage. For each stage
// `stage` come K S patches[stage] places and newest after those of the stages before; rows: R of each stage;
// active (K, S, stages).
void plan_stages(uint8_t* marks, int64_t k_frames, int64_t streams, int64_t stages, const int64_t* patches,
                 const int64_t* merges, int64_t* places, int32_t* newest, int64_t* active, int64_t* rows) {
  for (int64_t stage = 0; stage < stages; stage++) {
    rows[stage] = plan(marks, k_frames, streams, patches[stage], merges[stage], places, newest, marks, active + stage,
                       stages);
    places += k_frames * streams * patches[stage];
    newest += k_frames * streams * patches[stage];
  }
}

// The latest tokens of `merge` patches side by side, for `rows` places in (K, S, patches / merge) -> out.
// newest (K, S, patches): as planned.
void gather(const Tokens* of, const int32_t* newest, const int64_t* places, int64_t rows, int64_t merge, float* out,
            int threads) {
  const int64_t width = of->width;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * merge * width > 100000)
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t child = places[r] * merge; child < (places[r] + 1) * merge; child++) {
      int64_t slot = of->slots[child / of->patches % of->streams];
      const float* from = newest[child] >= 0 ? of->tokens + newest[child] * of->stride
                                             : of->table + (slot * of->patches + child % of->patches) * width;
      std::memcpy(out + (r * merge + child % merge) * width, from, width * sizeof(float));
    }
  }
}

// Writes the tokens that hold after the chunk's last frame into the table. newest (S, patches): of that frame.
void keep(const Tokens* of, const int32_t* newest) {
  for (int64_t s = 0; s < of->streams; s++)
    for (int64_t p = 0; p < of->patches; p++, newest++)
      if (*newest >= 0)
        std::memcpy(of->table + (of->slots[s] * of->patches + p) * of->width, of->tokens + *newest * of->stride,
                    of->width * sizeof(float));
}
}
