// Detection of the changed patches of chunks of frames, and gathering them.
//
// Tests compare this with the PyTorch implementation in detector.py.

#include <cmath>
#include <cstdint>
#include <cstring>

extern "C" {

struct Frames {  // (K, S, 3, side, side); strides in elements; that of channel or column is 1
  float* data;
  int64_t time, stream, channel, row, column;
};

struct Gate {
  int64_t side, patch;
  float threshold;
  int32_t mean;           // compare the mean absolute difference instead of the maximum
  int32_t hold;           // compare with the patch when last marked instead of the previous frame
  const int64_t* nested;  // index in nested order of each patch in row-major order
};
}

namespace {

constexpr int64_t MAX_SIDE = 4096;

// A row of patches of a frame: `planes` planes of `patch` lines of `length` elements, `width` of them per patch.
struct Band {
  int64_t planes, length, width, patch, channel, row;

  Band(const Frames& frames, const Gate& gate) : patch(gate.patch), channel(frames.channel), row(frames.row) {
    bool channels_last = frames.channel == 1;
    planes = channels_last ? 1 : 3;
    length = (channels_last ? 3 : 1) * gate.side;
    width = (channels_last ? 3 : 1) * gate.patch;
  }

  // Copies patches [first, last) of the row.
  void copy(const float* from, float* to, int64_t first, int64_t last) const {
    for (int64_t plane = 0; plane < planes; plane++)
      for (int64_t y = 0; y < patch; y++) {
        int64_t place = plane * channel + y * row + first * width;
        std::memcpy(to + place, from + place, (last - first) * width * sizeof(float));
      }
  }
};

// Sets marks[nested[c]] where patch c of a row differs from the reference; NaN counts as different.
template <bool mean>
void compare(const float* frame, const float* reference, const Band& band, const Gate& gate, const int64_t* nested,
             uint8_t* marks) {
  float columns[3 * MAX_SIDE];
  std::memset(columns, 0, band.length * sizeof(float));
  for (int64_t plane = 0; plane < band.planes; plane++) {
    for (int64_t y = 0; y < band.patch; y++) {
      const float* a = frame + plane * band.channel + y * band.row;
      const float* b = reference + plane * band.channel + y * band.row;
      if (mean) {
#pragma omp simd
        for (int64_t i = 0; i < band.length; i++) columns[i] += std::fabs(a[i] - b[i]);
      } else {
#pragma omp simd
        for (int64_t i = 0; i < band.length; i++) columns[i] += std::fabs(a[i] - b[i]) <= gate.threshold ? 0.0f : 1.0f;
      }
    }
  }
  float limit = mean ? gate.threshold * (3 * gate.patch * gate.patch) : 0.0f;
  for (int64_t c = 0; c < band.length / band.width; c++) {
    float sum = 0;
    for (int64_t i = c * band.width; i < (c + 1) * band.width; i++) sum += columns[i];
    marks[nested[c]] = !(sum <= limit);
  }
}

}  // namespace

extern "C" {

// Sets mask (K, S, N), in nested order, where a patch changed or its frame is computed in full (full (K, S)).
// references: one frame per slot, updated; slots (S,): those of the streams.
void find_changes(const Frames* frames, const Frames* references, const int64_t* slots, int64_t k_frames,
                  int64_t streams, const Gate* gate, const uint8_t* full, uint8_t* mask, int threads) {
  const int64_t n = gate->side / gate->patch;
  const Band band(*frames, *gate);
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int64_t s = 0; s < streams; s++) {
    for (int64_t line = 0; line < n; line++) {  // rows of patches are independent
      const int64_t down = line * gate->patch * frames->row;
      const int64_t* nested = gate->nested + line * n;
      float* held = references->data + slots[s] * references->stream + down;
      const float* reference = held;
      for (int64_t k = 0; k < k_frames; k++) {
        const float* frame = frames->data + k * frames->time + s * frames->stream + down;
        uint8_t* marks = mask + (k * streams + s) * n * n;
        if (full[k * streams + s])
          for (int64_t c = 0; c < n; c++) marks[nested[c]] = 1;
        else if (gate->mean)
          compare<true>(frame, reference, band, *gate, nested, marks);
        else
          compare<false>(frame, reference, band, *gate, nested, marks);
        if (gate->hold) {
          for (int64_t c = 0; c < n; c++)
            if (marks[nested[c]]) band.copy(frame, held, c, c + 1);
        } else {
          reference = frame;
        }
      }
      if (!gate->hold) band.copy(reference, held, 0, n);
    }
  }
}

// Gathers patches as rows (y, x, channel): indices (R,) into (K, S, N) -> out (R, patch * patch * 3).
// order: index in row-major order of each patch in nested order.
void take_patches(const Frames* frames, const int64_t* indices, int64_t rows, int64_t streams, const Gate* gate,
                  const int64_t* order, float* out, int threads) {
  const int64_t patch = gate->patch, n = gate->side / patch;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 64)
  for (int64_t i = 0; i < rows; i++) {
    int64_t frame = indices[i] / (n * n), place = order[indices[i] % (n * n)];
    const float* corner = frames->data + frame / streams * frames->time + frame % streams * frames->stream +
                          place / n * patch * frames->row + place % n * patch * frames->column;
    float* row = out + i * patch * patch * 3;
    for (int64_t y = 0; y < patch; y++) {
      const float* a = corner + y * frames->row;
      if (frames->channel == 1) {
        std::memcpy(row, a, 3 * patch * sizeof(float));
        row += 3 * patch;
      } else {
        for (int64_t x = 0; x < patch; x++)
          for (int64_t channel = 0; channel < 3; channel++) *row++ = a[x + channel * frames->channel];
      }
    }
  }
}
}
