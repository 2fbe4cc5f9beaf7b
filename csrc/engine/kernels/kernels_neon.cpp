// NEON of 64-bit ARM. Intrinsics and functions of this file only, as in every file of an instruction set.
// Empty in the part of a universal macOS build that is for x86.
#include "engine/kernels/kernels.hpp"

#ifdef RETINAFACE_HAVE_NEON

#include <arm_neon.h>

namespace retinaface::engine {

namespace {

struct Vec8 {
    float32x4_t low;
    float32x4_t high;
};

inline Vec8 load(const float* from) { return {vld1q_f32(from), vld1q_f32(from + 4)}; }
inline void store(float* to, Vec8 v) {
    vst1q_f32(to, v.low);
    vst1q_f32(to + 4, v.high);
}
inline Vec8 broadcast(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
inline Vec8 zero8() { return broadcast(0.0F); }
inline Vec8 add(Vec8 a, Vec8 b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
inline Vec8 subtract(Vec8 a, Vec8 b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
inline Vec8 multiply(Vec8 a, Vec8 b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
inline Vec8 maximum(Vec8 a, Vec8 b) { return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)}; }
inline Vec8 multiply_add(Vec8 a, Vec8 b, Vec8 c) {
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
inline Vec8 subtract_product(Vec8 a, Vec8 b, Vec8 c) {
    return {vfmsq_f32(c.low, a.low, b.low), vfmsq_f32(c.high, a.high, b.high)};
}

inline Vec8 load_bytes(const std::uint8_t* from) {
    const uint16x8_t words = vmovl_u8(vld1_u8(from));
    return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(words)))};
}

inline void store_sums4(Vec8 a, Vec8 b, Vec8 c, Vec8 d, float* out) {
    const float32x4_t ab = vpaddq_f32(vaddq_f32(a.low, a.high), vaddq_f32(b.low, b.high));
    const float32x4_t cd = vpaddq_f32(vaddq_f32(c.low, c.high), vaddq_f32(d.low, d.high));
    vst1q_f32(out, vpaddq_f32(ab, cd));
}

// Columns of the first convolution computed together: 16 registers of sums.
constexpr std::size_t kStemColumns = 8;

// Adds the products of one input channel, lane `lane` of the columns' values.
template <int lane, std::size_t count>
inline void add_products(const float32x4_t* values, const float* weights, float32x4_t (*sum)[4]) {
#pragma GCC unroll 4
    for (std::size_t q = 0; q < 4; ++q) {
        const float32x4_t weight = vld1q_f32(weights + 16 * lane + 4 * q);
#pragma GCC unroll 5
        for (std::size_t j = 0; j < count; ++j)
            sum[j][q] = vfmaq_laneq_f32(sum[j][q], weight, values[j], lane);
    }
}

// 5 columns by 16 channels: 20 sums, 5 registers of inputs, each 4 channels of a column, and the rest for
// weights.
template <std::size_t count, typename Sink>
inline void multiply_columns(const float* in, std::size_t block_stride, std::size_t in_channels,
                             const float* weights, const float* bias, std::size_t x, const Sink& sink) {
    float32x4_t sum[count][4];
#pragma GCC unroll 5
    for (std::size_t j = 0; j < count; ++j) {
#pragma GCC unroll 4
        for (std::size_t q = 0; q < 4; ++q) sum[j][q] = vld1q_f32(bias + 4 * q);
    }
    const float* block = in + 8 * x;
    for (std::size_t c = 0; c < in_channels; c += 8) {
#pragma GCC unroll 1
        for (std::size_t half = 0; half < 8; half += 4) {
            float32x4_t values[count];
#pragma GCC unroll 5
            for (std::size_t j = 0; j < count; ++j) values[j] = vld1q_f32(block + 8 * j + half);
            add_products<0, count>(values, weights, sum);
            add_products<1, count>(values, weights, sum);
            add_products<2, count>(values, weights, sum);
            add_products<3, count>(values, weights, sum);
            weights += 4 * 16;
        }
        block += block_stride;
    }
#pragma GCC unroll 5
    for (std::size_t j = 0; j < count; ++j)
        sink(x + j, Vec8{sum[j][0], sum[j][1]}, Vec8{sum[j][2], sum[j][3]});
}

// In groups of nearly equal size: 3 columns at least where there are more than 5, and so 12 sums at a time.
template <typename Sink>
inline void multiply_panel(const float* in, std::size_t block_stride, std::size_t in_channels,
                           const float* weights, const float* bias, std::size_t count, const Sink& sink) {
    std::size_t x = 0;
    for (std::size_t groups = (count + 4) / 5; groups > 0; --groups) {
        const std::size_t take = (count - x + groups - 1) / groups;
        switch (take) {
            case 5:
                multiply_columns<5>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 4:
                multiply_columns<4>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 3:
                multiply_columns<3>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 2:
                multiply_columns<2>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            default:
                multiply_columns<1>(in, block_stride, in_channels, weights, bias, x, sink);
        }
        x += take;
    }
}

#include "engine/kernels/vector_kernels.inl"

}  // namespace

const EngineKernels kNeonEngineKernels = {convert_row,     stem_row,        depthwise_row,
                                          pointwise_row,   winograd_input,  winograd_multiply,
                                          winograd_output, class_scores_row};

}  // namespace retinaface::engine

#endif
