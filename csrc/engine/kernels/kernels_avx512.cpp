// AVX-512 F, BW, DQ and VL, and FMA: the 32 registers for all kernels, and 16 channels in each of them for
// the product of matrices. Intrinsics and functions of this file only: a function shared with a file for
// another instruction set could be taken from here by the linker and run on a CPU that cannot.
#include <immintrin.h>

#include "engine/kernels/kernels.hpp"

namespace retinaface::engine {

namespace {

#include "engine/kernels/vec8_x86.inl"

// Columns of the first convolution computed together: their sums leave half of the registers free, and most
// widths are multiples of 16.
constexpr std::size_t kStemColumns = 16;

// With a mask that is all ones and costs nothing: gcc 12 finds an uninitialised variable in its own form
// without.
template <int index>
inline Vec8 half(__m512 v) {
    return _mm512_maskz_extractf32x8_ps(0xFF, v, index);
}

// `count` columns by 16 channels, one register each. The input is an operand in memory that the
// multiplication broadcasts; 16 columns of a block of 8 channels are as far as its short form of address
// reaches.
template <std::size_t count, typename Sink>
inline void multiply_columns(const float* in, std::size_t block_stride, std::size_t in_channels,
                             const float* weights, const float* bias, std::size_t x, const Sink& sink) {
    __m512 sum[count];
#pragma GCC unroll 16
    for (std::size_t j = 0; j < count; ++j) sum[j] = _mm512_loadu_ps(bias);
    const float* block = in + 8 * x;
    for (std::size_t c = 0; c < in_channels; c += 8) {
#pragma GCC unroll 8
        for (std::size_t k = 0; k < 8; ++k) {
            const __m512 weight = _mm512_loadu_ps(weights + 16 * k);
#pragma GCC unroll 16
            for (std::size_t j = 0; j < count; ++j) {
                sum[j] = _mm512_fmadd_ps(_mm512_set1_ps(block[8 * j + k]), weight, sum[j]);
            }
        }
        weights += 128;
        block += block_stride;
    }
#pragma GCC unroll 16
    for (std::size_t j = 0; j < count; ++j) {
        sink(x + j, half<0>(sum[j]), half<1>(sum[j]));
    }
}

// In groups of nearly equal size: two multipliers that take four cycles are busy from 8 columns on, which all
// groups have when there are more than 16 columns.
template <typename Sink>
inline void multiply_panel(const float* in, std::size_t block_stride, std::size_t in_channels,
                           const float* weights, const float* bias, std::size_t count, const Sink& sink) {
    std::size_t x = 0;
    for (std::size_t groups = (count + 15) / 16; groups > 0; --groups) {
        const std::size_t take = (count - x + groups - 1) / groups;
        switch (take) {
            case 16:
                multiply_columns<16>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 15:
                multiply_columns<15>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 14:
                multiply_columns<14>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 13:
                multiply_columns<13>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 12:
                multiply_columns<12>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 11:
                multiply_columns<11>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 10:
                multiply_columns<10>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 9:
                multiply_columns<9>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 8:
                multiply_columns<8>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
            case 7:
                multiply_columns<7>(in, block_stride, in_channels, weights, bias, x, sink);
                break;
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

const EngineKernels kAvx512EngineKernels = {convert_row,     stem_row,        depthwise_row,
                                            pointwise_row,   winograd_input,  winograd_multiply,
                                            winograd_output, class_scores_row};

}  // namespace retinaface::engine
