// The readable twin of every other level: plain loops, the innermost over the 8 channels of a block or the 16
// of a panel, which is what a compiler turns into vectors by itself.
#include "engine/kernels/kernels.hpp"

namespace retinaface::engine {

namespace {

float rectified(float x, float slope) noexcept {
    const float low = slope * x;
    return x > low ? x : low;
}

// Columns whose sums grow side by side: one alone would wait for its own last addition.
constexpr std::size_t kColumns = 8;

void begin_sums(const float* bias, std::size_t columns, float (*sum)[kBlock]) noexcept {
    for (std::size_t x = 0; x < columns; ++x) {
        for (std::size_t j = 0; j < kBlock; ++j) sum[x][j] = bias[j];
    }
}

void end_sums(const float (*sum)[kBlock], float slope, std::size_t columns, float* out) noexcept {
    for (std::size_t x = 0; x < columns; ++x) {
        for (std::size_t j = 0; j < kBlock; ++j) out[kBlock * x + j] = rectified(sum[x][j], slope);
    }
}

void convert_row(const std::uint8_t* pixels, std::size_t width, const float* mean, float* out) noexcept {
    for (std::size_t x = 0; x < width; ++x) {
        for (std::size_t c = 0; c < 3; ++c) {
            out[3 * x + c] = static_cast<float>(pixels[3 * x + c]) - mean[c];
        }
    }
}

void stem_row(const float* const* rows, const float* weights, const float* bias, float slope,
              std::size_t blocks, std::size_t width, bool rgb, MutableRow out) noexcept {
    for (std::size_t b = 0; b < blocks; ++b) {
        for (std::size_t begin = 0; begin < width; begin += kColumns) {
            const std::size_t columns = width - begin < kColumns ? width - begin : kColumns;
            float sum[kColumns][kBlock];
            begin_sums(bias + kBlock * b, columns, sum);
            const float* weight = weights + 27 * kBlock * b;
            for (std::size_t ky = 0; ky < 3; ++ky) {
                const float* const patch = rows[ky] + 6 * begin - 3;
                for (std::size_t kx = 0; kx < 3; ++kx) {
                    for (std::size_t c = 0; c < 3; ++c, weight += kBlock) {
                        for (std::size_t x = 0; x < columns; ++x) {
                            const float value = patch[6 * x + 3 * kx + (rgb ? 2 - c : c)];
                            for (std::size_t j = 0; j < kBlock; ++j) sum[x][j] += value * weight[j];
                        }
                    }
                }
            }
            end_sums(sum, slope, columns, out.data + b * out.block_stride + kBlock * begin);
        }
    }
}

void depthwise_row(const Row* rows, const float* weights, const float* bias, float slope, std::size_t blocks,
                   std::size_t stride, std::size_t first, std::size_t count, MutableRow out) noexcept {
    for (std::size_t b = 0; b < blocks; ++b) {
        for (std::size_t begin = 0; begin < count; begin += kColumns) {
            const std::size_t columns = count - begin < kColumns ? count - begin : kColumns;
            float sum[kColumns][kBlock];
            begin_sums(bias + kBlock * b, columns, sum);
            const float* weight = weights + 9 * kBlock * b;
            for (std::size_t ky = 0; ky < 3; ++ky) {
                const float* const patch =
                    rows[ky].data + b * rows[ky].block_stride + kBlock * stride * (first + begin) - kBlock;
                for (std::size_t kx = 0; kx < 3; ++kx, weight += kBlock) {
                    for (std::size_t x = 0; x < columns; ++x) {
                        const float* const value = patch + kBlock * (stride * x + kx);
                        for (std::size_t j = 0; j < kBlock; ++j) sum[x][j] += value[j] * weight[j];
                    }
                }
            }
            end_sums(sum, slope, columns, out.data + b * out.block_stride + kBlock * begin);
        }
    }
}

// For `columns` <= kColumns columns and one panel: sum[x][n] += sum over k of in[k] of column x * weights[k,
// n].
void add_products(const float* in, std::size_t block_stride, std::size_t in_channels, const float* weights,
                  std::size_t columns, float (*sum)[kPanel]) noexcept {
    for (std::size_t b = 0; b < in_channels / kBlock; ++b) {
        for (std::size_t k = 0; k < kBlock; ++k, weights += kPanel) {
            for (std::size_t x = 0; x < columns; ++x) {
                const float value = in[b * block_stride + kBlock * x + k];
                for (std::size_t n = 0; n < kPanel; ++n) sum[x][n] += value * weights[n];
            }
        }
    }
}

void pointwise_row(Row in, std::size_t in_channels, const float* weights, const float* bias, float slope,
                   std::size_t panels, std::size_t count, Row addend, std::size_t first,
                   MutableRow out) noexcept {
    for (std::size_t panel = 0; panel < panels; ++panel) {
        for (std::size_t begin = 0; begin < count; begin += kColumns) {
            const std::size_t columns = count - begin < kColumns ? count - begin : kColumns;
            float sum[kColumns][kPanel];
            for (std::size_t x = 0; x < columns; ++x) {
                for (std::size_t n = 0; n < kPanel; ++n) sum[x][n] = bias[kPanel * panel + n];
            }
            add_products(in.data + kBlock * begin, in.block_stride, in_channels,
                         weights + panel * in_channels * kPanel, columns, sum);
            for (std::size_t i = 0; i < columns * kPanel; ++i) {
                const std::size_t x = i / kPanel;
                const std::size_t block = panel * (kPanel / kBlock) + i % kPanel / kBlock;
                const std::size_t j = i % kBlock;
                float result = rectified(sum[x][i % kPanel], slope);
                if (addend.data != nullptr) {
                    result +=
                        addend.data[block * addend.block_stride + kBlock * ((first + begin + x) / 2) + j];
                }
                out.data[block * out.block_stride + kBlock * (begin + x) + j] = result;
            }
        }
    }
}

// B^T of F(4, 3) times six vectors that lie `in_step` apart.
void transform_input(const float* in, std::size_t in_step, float* out, std::size_t out_step) noexcept {
    for (std::size_t j = 0; j < kBlock; ++j) {
        const float d0 = in[j];
        const float d1 = in[in_step + j];
        const float d2 = in[2 * in_step + j];
        const float d3 = in[3 * in_step + j];
        const float d4 = in[4 * in_step + j];
        const float d5 = in[5 * in_step + j];
        const float even = d4 - 4.0F * d2;
        const float odd = d3 - 4.0F * d1;
        const float even_half = d4 - d2;
        const float odd_half = 2.0F * (d3 - d1);
        out[j] = (4.0F * d0 - 5.0F * d2) + d4;
        out[out_step + j] = even + odd;
        out[2 * out_step + j] = even - odd;
        out[3 * out_step + j] = even_half + odd_half;
        out[4 * out_step + j] = even_half - odd_half;
        out[5 * out_step + j] = (4.0F * d1 - 5.0F * d3) + d5;
    }
}

void winograd_input(const Row* rows, std::size_t blocks, std::size_t count, std::size_t position_stride,
                    std::size_t block_stride, float* out) noexcept {
    for (std::size_t b = 0; b < blocks; ++b) {
        for (std::size_t t = 0; t < count; ++t) {
            // Position (row, column) of a patch is at row * kPatch + column in all of them: B^T d B is B^T
            // applied along the rows, then along the columns.
            float half[kPositions * kBlock];
            for (std::size_t row = 0; row < kPatch; ++row) {
                const float* const patch =
                    rows[row].data + b * rows[row].block_stride + kBlock * kTile * t - kBlock;
                transform_input(patch, kBlock, half + row * kPatch * kBlock, kBlock);
            }
            float* const result = out + b * block_stride + kBlock * t;
            for (std::size_t column = 0; column < kPatch; ++column) {
                transform_input(half + column * kBlock, kPatch * kBlock, result + column * position_stride,
                                kPatch * position_stride);
            }
        }
    }
}

void winograd_multiply(const float* in, std::size_t position_stride, std::size_t block_stride,
                       std::size_t in_channels, const float* weights, std::size_t count,
                       std::size_t out_position_stride, float* out) noexcept {
    for (std::size_t p = 0; p < kPositions; ++p) {
        for (std::size_t begin = 0; begin < count; begin += kColumns) {
            const std::size_t tiles = count - begin < kColumns ? count - begin : kColumns;
            float sum[kColumns][kPanel] = {};
            add_products(in + p * position_stride + kBlock * begin, block_stride, in_channels,
                         weights + p * in_channels * kPanel, tiles, sum);
            float* const result = out + p * out_position_stride + kBlock * begin;
            for (std::size_t t = 0; t < tiles; ++t) {
                for (std::size_t j = 0; j < kBlock; ++j) {
                    result[kBlock * t + j] = sum[t][j];
                    result[kBlock * (count + t) + j] = sum[t][kBlock + j];
                }
            }
        }
    }
}

// A^T of F(4, 3) times six vectors that lie `in_step` apart.
void transform_output(const float* in, std::size_t in_step, float* out, std::size_t out_step) noexcept {
    for (std::size_t j = 0; j < kBlock; ++j) {
        const float m1 = in[in_step + j];
        const float m2 = in[2 * in_step + j];
        const float m3 = in[3 * in_step + j];
        const float m4 = in[4 * in_step + j];
        const float near_sum = m1 + m2;
        const float near_difference = m1 - m2;
        const float far_sum = m3 + m4;
        const float far_difference = m3 - m4;
        out[j] = (in[j] + near_sum) + far_sum;
        out[out_step + j] = near_difference + 2.0F * far_difference;
        out[2 * out_step + j] = near_sum + 4.0F * far_sum;
        out[3 * out_step + j] = (near_difference + 8.0F * far_difference) + in[5 * in_step + j];
    }
}

void winograd_output(const float* in, std::size_t position_stride, std::size_t count, const float* bias,
                     float slope, std::size_t valid_rows, std::size_t valid_columns,
                     float* const* out) noexcept {
    for (std::size_t t = 0; t < count; ++t) {
        float half[kTile * kPatch * kBlock];
        for (std::size_t column = 0; column < kPatch; ++column) {
            transform_output(in + column * position_stride + kBlock * t, kPatch * position_stride,
                             half + column * kBlock, kPatch * kBlock);
        }
        const std::size_t left = valid_columns - kTile * t;
        const std::size_t columns = left < kTile ? left : kTile;
        for (std::size_t row = 0; row < valid_rows; ++row) {
            float tile[kTile * kBlock];
            transform_output(half + row * kPatch * kBlock, kBlock, tile, kBlock);
            float* const result = out[row] + kBlock * kTile * t;
            for (std::size_t x = 0; x < columns; ++x) {
                for (std::size_t j = 0; j < kBlock; ++j) {
                    result[kBlock * x + j] = rectified(tile[kBlock * x + j] + bias[j], slope);
                }
            }
        }
    }
}

void class_scores_row(Row in, std::size_t channels, const float* weights, const float* bias,
                      std::size_t outputs, std::size_t width, float* out) noexcept {
    for (std::size_t x = 0; x < width; ++x) {
        for (std::size_t o = 0; o < outputs; ++o) {
            float sum[kBlock] = {};
            for (std::size_t b = 0; b < channels / kBlock; ++b) {
                const float* const value = in.data + b * in.block_stride + kBlock * x;
                const float* const weight = weights + o * channels + kBlock * b;
                for (std::size_t j = 0; j < kBlock; ++j) sum[j] += value[j] * weight[j];
            }
            float total = bias[o];
            for (const float part : sum) total += part;
            out[x * outputs + o] = total;
        }
    }
}

}  // namespace

const EngineKernels kScalarEngineKernels{convert_row,     stem_row,        depthwise_row,
                                         pointwise_row,   winograd_input,  winograd_multiply,
                                         winograd_output, class_scores_row};

}  // namespace retinaface::engine
