// Decoders of Prophesee's encodings EVT 2.0, EVT 3.0 and DAT. evt.py and prophesee.py have the same in NumPy and describe
// the words.

#include <cstdint>

namespace {

// State between blocks of words; the same fields as in evt.py.
struct State {
    int64_t high;       // unwrapped high bits of the time, -1 before the first
    int64_t raw;        // the last high bits as they are in the file, -1 before the first
    int64_t overflows;  // of the high bits
    int64_t low;        // low bits of the time
    int64_t row;        // -1 before the first
    int64_t base;       // x of the next mask, -1 before the first
    int64_t polarity;   // of the masks
    int64_t x_bits;     // DAT: number of bits of x and y in the second word of an event
    int64_t y_bits;
};

// Unwrap the high bits: a step back by more than half of their range is an overflow.
inline void set_high(State& state, int64_t value, int bits) {
    if (state.raw >= 0 && value - state.raw < -(int64_t(1) << (bits - 1))) ++state.overflows;
    state.raw = value;
    state.high = value + (state.overflows << bits);
}

constexpr int64_t kMaxX = 0xFFFF;

}  // namespace

extern "C" {

// Decode n words of 32 bits; each has at most one event. Returns the number of events.
int64_t decode_evt2(const uint32_t* words, int64_t n, State* kept, int64_t* __restrict t, uint16_t* __restrict x,
                    uint16_t* __restrict y, uint8_t* __restrict p) {
    State state = *kept;
    int64_t count = 0;
    for (int64_t i = 0; i < n;) {
        const uint32_t kind = words[i] >> 28;
        if (kind == 8) set_high(state, words[i] & 0x0FFFFFFF, 28);
        if (kind > 1 || state.high < 0) {
            ++i;
            continue;
        }
        int64_t end = i + 1;  // of the events with the same high bits
        while (end < n && words[end] >> 28 <= 1) ++end;
        const int64_t high = state.high << 6;
        for (; i < end; ++i, ++count) {
            t[count] = high + (words[i] >> 22 & 0x3F);
            x[count] = words[i] >> 11 & 0x7FF;
            y[count] = words[i] & 0x7FF;
            p[count] = words[i] >> 28;
        }
    }
    *kept = state;
    return count;
}

// Decode n events of 64 bits of the DAT format; the overflow of their 32-bit time is undone. Returns the number of events.
int64_t decode_dat(const uint32_t* words, int64_t n, State* kept, int64_t* __restrict t, uint16_t* __restrict x,
                    uint16_t* __restrict y, uint8_t* __restrict p) {
    if (n == 0) return 0;
    const int64_t half = int64_t(1) << 31;
    const uint32_t x_bits = kept->x_bits, y_bits = kept->y_bits;
    const uint32_t x_mask = (1u << x_bits) - 1, y_mask = (1u << y_bits) - 1;
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t address = words[2 * i + 1];
        x[i] = address & x_mask;
        y[i] = address >> x_bits & y_mask;
        p[i] = address >> (x_bits + y_bits) & 1;
    }
    uint32_t latest = 0, earliest = ~uint32_t(0);
    for (int64_t i = 0; i < n; ++i) {
        latest = words[2 * i] > latest ? words[2 * i] : latest;
        earliest = words[2 * i] < earliest ? words[2 * i] : earliest;
    }
    int64_t raw = kept->raw < 0 ? words[0] : kept->raw, overflows = kept->overflows;
    // No step can exceed half of the range.
    if (latest - raw <= half && raw - earliest <= half && latest - earliest <= half) {
        const int64_t base = overflows << 32;
        for (int64_t i = 0; i < n; ++i) t[i] = base + words[2 * i];
        raw = words[2 * (n - 1)];
    } else {
        for (int64_t i = 0; i < n; ++i) {
            const int64_t time = words[2 * i];
            overflows += int64_t(time - raw < -half) - int64_t(time - raw > half);
            raw = time;
            t[i] = time + (overflows << 32);
        }
    }
    kept->raw = raw;
    kept->overflows = overflows;
    return n;
}

// Decode n words of 16 bits; each has at most 12 events. Returns the number of events.
int64_t decode_evt3(const uint16_t* words, int64_t n, State* kept, int64_t* __restrict t, uint16_t* __restrict x,
                    uint16_t* __restrict y, uint8_t* __restrict p) {
    State state = *kept;
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t word = words[i], value = word & 0xFFF;
        switch (word >> 12) {
            case 0x0:
                state.row = value & 0x7FF;
                break;
            case 0x2:
                if (state.row < 0 || state.high < 0) break;
                t[count] = (state.high << 12) + state.low;
                x[count] = value & 0x7FF;
                y[count] = state.row;
                p[count] = value >> 11;
                ++count;
                break;
            case 0x3:
                state.base = value & 0x7FF;
                state.polarity = value >> 11;
                break;
            case 0x4:
            case 0x5: {
                if (state.base < 0) break;
                const int width = word >> 12 == 0x4 ? 12 : 8;
                if (state.row >= 0 && state.high >= 0) {
                    for (uint32_t mask = value & ((1u << width) - 1); mask; mask &= mask - 1) {
                        const int64_t column = state.base + __builtin_ctz(mask);
                        t[count] = (state.high << 12) + state.low;
                        x[count] = column < kMaxX ? column : kMaxX;
                        y[count] = state.row;
                        p[count] = state.polarity;
                        ++count;
                    }
                }
                state.base = state.base + width < kMaxX ? state.base + width : kMaxX;
                break;
            }
            case 0x6:
                state.low = value;
                break;
            case 0x8: {
                const int64_t before = state.high;
                set_high(state, value, 12);
                if (state.high != before) state.low = 0;
                break;
            }
            default:
                break;
        }
    }
    *kept = state;
    return count;
}

}  // extern "C"
