// AVX2 and FMA. Intrinsics and functions of this file only: a function shared with a file for another
// instruction set could be taken from here by the linker and run on a CPU that cannot.
#include <immintrin.h>

#include "engine/kernels/kernels.hpp"

namespace retinaface::engine {

namespace {

#include "engine/kernels/vec8_x86.inl"

// Columns of the first convolution computed together: 12 sums, a weight and an input fill the registers.
constexpr std::size_t kStemColumns = 12;

// 6 columns by 16 channels: 12 sums, 2 weights and an input in the 16 registers.
template <std::size_t count, typename Sink>
inline void multiply_columns(const float* in, std::size_t block_stride, std::size_t in_channels,
                             const float* weights, const float* bias, std::size_t x, const Sink& sink) {
    Vec8 low[count];
    Vec8 high[count];
    const Vec8 bias_low = load(bias);
    const Vec8 bias_high = load(bias + 8);
#pragma GCC unroll 6
    for (std::size_t j = 0; j < count; ++j) {
        low[j] = bias_low;
        high[j] = bias_high;
    }
    const float* block = in + 8 * x;
    for (std::size_t c = 0; c < in_channels; c += 8) {
#pragma GCC unroll 8
        for (std::size_t k = 0; k < 8; ++k) {
            const Vec8 weight_low = load(weights + 16 * k);
            const Vec8 weight_high = load(weights + 16 * k + 8);
            // The next panel, which begins on another page: the prefetcher of the CPU stops at its end. 3 %
            // of the network.
            if (count == 6) {
                _mm_prefetch(reinterpret_cast<const char*>(weights + 16 * k + 16 * in_channels), _MM_HINT_T0);
            }
#pragma GCC unroll 6
            for (std::size_t j = 0; j < count; ++j) {
                const Vec8 value = _mm256_broadcast_ss(block + 8 * j + k);
                low[j] = multiply_add(value, weight_low, low[j]);
                high[j] = multiply_add(value, weight_high, high[j]);
            }
        }
        weights += 128;
        block += block_stride;
    }
#pragma GCC unroll 6
    for (std::size_t j = 0; j < count; ++j) sink(x + j, low[j], high[j]);
}

// Few columns leave the multipliers waiting for their own sums: a rest is 4 or 5 columns wherever it can be.
template <typename Sink>
inline void multiply_panel(const float* in, std::size_t block_stride, std::size_t in_channels,
                           const float* weights, const float* bias, std::size_t count, const Sink& sink) {
    std::size_t x = 0;
    while (x < count) {
        const std::size_t left = count - x;
        const std::size_t take = left >= 11 || left == 6  ? 6
                                 : left == 7 || left == 8 ? 4
                                 : left >= 9              ? 5
                                                          : left;
        switch (take) {
            case 6:
                multiply_columns<6>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
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

const EngineKernels kAvx2EngineKernels = {convert_row,     stem_row,        depthwise_row,
                                          pointwise_row,   winograd_input,  winograd_multiply,
                                          winograd_output, class_scores_row};

}  // namespace retinaface::engine
