// Update of the token tables: which tokens are new in each stage of a chunk, gathering and storing them, step by step or
// for a network in one call.
//
// Tests compare this with the PyTorch implementation in features.py.
// Notation: K frames per stream, S streams, N patches per stage, R changed patches in total. Index: position in (K, S, N).

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

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

struct Stage;  // stage.cpp
void stage_rows(const Stage* stage, int bytes, const float* x, int64_t rows, float* out, int64_t stride, int threads,
                int64_t group);

struct Level {  // stage of a network with its token table; merge: patches that form a patch of the next level
  const Stage* stage;
  float* table;
  int64_t width, stride, patches, merge;
};
}

namespace {

// Memory that grows on demand and is reused by later calls; it is not initialized.
template <class T>
class Buffer {
  std::unique_ptr<T[]> kept;
  int64_t size = 0;

 public:
  T* get(int64_t needed) {
    if (size < needed) kept.reset(new T[size = needed]);
    return kept.get();
  }
};

}  // namespace

extern "C" {

// Computes the changed patches of a network level by level, updates all tables and returns the logits of every frame,
// (K, S, classes), and the number of computed patches, active (K, S, count - 1). The last level is the classifier.
// marks (K, S, patches of the first level) is overwritten; pixels: inputs of the marked patches; bytes: per weight.
void update_network(const Level* levels, int64_t count, int bytes, uint8_t* marks, int64_t k_frames, int64_t streams,
                    const int64_t* slots, const float* pixels, float* logits, int64_t* active, int threads) {
  thread_local Buffer<int64_t> index_memory;
  thread_local Buffer<int32_t> newest_memory;
  thread_local Buffer<float> token_memory, input_memory;
  const int64_t images = k_frames * streams, stages = count - 1;
  std::vector<int64_t> patches(stages), merges(stages), rows(stages);
  for (int64_t i = 0; i < stages; i++) patches[i] = levels[i].patches, merges[i] = levels[i].merge;
  const int64_t total = images * std::accumulate(patches.begin(), patches.end(), int64_t(0));
  int64_t* indices = index_memory.get(total + images);
  int32_t* newest = newest_memory.get(total);
  plan_stages(marks, k_frames, streams, stages, patches.data(), merges.data(), indices, newest, active, rows.data());
  int64_t* every_image = indices + total;
  std::iota(every_image, every_image + images, int64_t(0));
  const float* x = pixels;
  for (int64_t i = 0; i < count; i++) {
    const Level& level = levels[i];
    const bool last = i == stages;  // its patches are those of the stage below
    const int64_t n = rows[last ? i - 1 : i];
    float* tokens = token_memory.get(n * level.stride);
    stage_rows(level.stage, bytes, x, n, tokens, level.stride, threads, -1);
    const Tokens of = {tokens, level.table, level.stride, level.width, streams, level.patches, slots};
    if (last) {
      gather(&of, newest, every_image, images, 1, logits, threads);
    } else {
      const bool below_classifier = i + 1 == stages;
      const int64_t* next = below_classifier ? indices : indices + images * level.patches;
      const int64_t next_rows = below_classifier ? n : rows[i + 1];
      float* inputs = input_memory.get(next_rows * level.merge * level.width);
      gather(&of, newest, next, next_rows, level.merge, inputs, threads);
      x = inputs;
      indices += images * level.patches;
    }
    store(&of, newest + (k_frames - 1) * streams * level.patches);
    if (i + 1 < stages) newest += images * level.patches;
  }
}
}
