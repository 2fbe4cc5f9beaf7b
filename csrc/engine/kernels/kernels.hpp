// The inner loops of the network, one table for each instruction set. All are noexcept and allocate nothing.
//
// Feature maps are rows of blocks of 8 channels: channel c of column x of a row lies at
// data[(c / 8) * block_stride + 8 * x + c % 8]. Column -1 and at least kRightPadding columns right of the
// last one are there and hold zeros, so that no kernel looks at borders; a row above or below the picture is
// a single block of zeros with block_stride 0.
//
// Every output number is computed by the same operations in the same order wherever it lies and however many
// are computed together, so that the result does not depend on how rows are shared out among threads. Levels
// may differ from one another in rounding: they sum in another order or fuse multiplication and addition.
#pragma once

#include <cstddef>
#include <cstdint>

// The files of AVX2 and AVX-512 need flags, so that CMake says which are there; NEON is a part of 64-bit ARM,
// which in a universal macOS build is one of two targets.
#if defined(__aarch64__) || defined(_M_ARM64)
#define RETINAFACE_HAVE_NEON
#endif

namespace retinaface::engine {

inline constexpr std::size_t kBlock = 8;   // channels of a block
inline constexpr std::size_t kPanel = 16;  // output channels that a matrix product computes together
inline constexpr std::size_t kTile = 4;    // rows and columns of outputs of a Winograd tile
inline constexpr std::size_t kPatch = 6;   // rows and columns of inputs of a Winograd tile
inline constexpr std::size_t kPositions = kPatch * kPatch;
inline constexpr std::size_t kRightPadding = 5;  // a tile that begins at the last column reads 4 past it

// A row of a feature map to read; `data` is at column 0 of the first block.
struct Row {
    const float* data;
    std::size_t block_stride;  // floats
};

// And to write.
struct MutableRow {
    float* data;
    std::size_t block_stride;
};

// Leaky rectifier: max(x, slope * x), 0 <= slope <= 1. A slope of 1 leaves x as it is; a slope of 0 makes an
// infinite x NaN, which no finite picture and weights of a trained network give.

struct EngineKernels {
    // Bytes of `width` pixels of three channels -> out[i] = pixel byte i - mean[i % 3], for i < 3 * width.
    // `mean` is in the order of the channels of the pixels.
    void (*convert_row)(const std::uint8_t* pixels, std::size_t width, const float* mean,
                        float* out) noexcept;

    // The first convolution: 3x3, stride 2, padding 1, three channels in, 8 * blocks out, leaky rectifier.
    // rows: the three rows of interleaved pixels that output row y reads (2y - 1, 2y, 2y + 1), as
    // convert_row gives them, at pixel 0; three zeros before it and three after the last one.
    // weights: (blocks, 27, 8) with tap (3 * ky + kx) * 3 + channel, channel blue, green, red; bias: (blocks,
    // 8). rgb: the pixels are red, green, blue. Each output sums in the order of the taps, whatever the
    // pixels' order. Writes `width` columns of out.
    void (*stem_row)(const float* const* rows, const float* weights, const float* bias, float slope,
                     std::size_t blocks, std::size_t width, bool rgb, MutableRow out) noexcept;

    // Depthwise 3x3, padding 1, stride 1 or 2, leaky rectifier.
    // rows: the three rows that the output row reads. weights: (blocks, 9, 8); bias: (blocks, 8).
    // Writes output columns [first, first + count) to columns [0, count) of out.
    void (*depthwise_row)(const Row* rows, const float* weights, const float* bias, float slope,
                          std::size_t blocks, std::size_t stride, std::size_t first, std::size_t count,
                          MutableRow out) noexcept;

    // Pointwise convolution: out[n] = rectified(bias[n] + sum over k of in[k] * weights[k, n]) for `count`
    // columns. in_channels is a multiple of 8. weights: (panels, in_channels, 16); bias: (panels, 16).
    // With `addend`, the upsampled row of the coarser level, addend[n] of column (first + x) / 2 is added
    // after the rectifier; addend.data == nullptr: nothing is added. `in` and `out` are at the first of the
    // columns and do not overlap.
    void (*pointwise_row)(Row in, std::size_t in_channels, const float* weights, const float* bias,
                          float slope, std::size_t panels, std::size_t count, Row addend, std::size_t first,
                          MutableRow out) noexcept;

    // Winograd F(4x4, 3x3), Lavin and Gray 2016 (arXiv 1509.09308). Tile t of a row of tiles covers output
    // columns 4t to 4t + 3 and reads columns 4t - 1 to 4t + 4 of six rows.

    // rows: the six input rows of a row of tiles, at column 4 * first_tile. Of each of `count` tiles and each
    // of `blocks` blocks of channels, the transformed patch: position p (6 * row + column) of block b of tile
    // t goes to out[p * position_stride + b * block_stride + 8 * t].
    void (*winograd_input)(const Row* rows, std::size_t blocks, std::size_t count,
                           std::size_t position_stride, std::size_t block_stride, float* out) noexcept;

    // For each position p < 36 and `count` tiles, a panel of products:
    // out[p * out_position_stride + h * 8 * count + 8 * t + j] =
    //     sum over k of in[p * position_stride + (k / 8) * block_stride + 8 * t + k % 8]
    //                   * weights[p, k, 8 * h + j],   h < 2, j < 8.
    // weights: (36, in_channels, 16).
    void (*winograd_multiply)(const float* in, std::size_t position_stride, std::size_t block_stride,
                              std::size_t in_channels, const float* weights, std::size_t count,
                              std::size_t out_position_stride, float* out) noexcept;

    // One block of 8 channels back to pixels: in[p * position_stride + 8 * t] -> bias, leaky rectifier, rows
    // out[0 .. valid_rows) at column 0 of the first tile, of which `valid_columns` columns are written
    // (4 * (count - 1) < valid_columns <= 4 * count); 1 <= valid_rows <= 4.
    void (*winograd_output)(const float* in, std::size_t position_stride, std::size_t count,
                            const float* bias, float slope, std::size_t valid_rows, std::size_t valid_columns,
                            float* const* out) noexcept;

    // The class heads: out[x * outputs + o] = bias[o] + sum over channels of in * weights[o, channel] for
    // `width` columns. weights: (outputs, channels), channels a multiple of 8, outputs a multiple of 2.
    void (*class_scores_row)(Row in, std::size_t channels, const float* weights, const float* bias,
                             std::size_t outputs, std::size_t width, float* out) noexcept;
};

extern const EngineKernels kScalarEngineKernels;
#ifdef RETINAFACE_HAVE_AVX2
extern const EngineKernels kAvx2EngineKernels;
#endif
#ifdef RETINAFACE_HAVE_AVX512
extern const EngineKernels kAvx512EngineKernels;
#endif
#ifdef RETINAFACE_HAVE_NEON
extern const EngineKernels kNeonEngineKernels;
#endif

// The table of the active level. Throws as active_simd_level does.
[[nodiscard]] const EngineKernels& engine_kernels();

}  // namespace retinaface::engine
