// The inner loops of the network at the level in use, against direct sums in double.
//
// Each test first computes every output number alone, the smallest call that gives it, and holds that against
// the oracle. Every longer call, at every place, must then give the same bits and leave all else as it was:
// outputs lie among canaries, inputs are allocated to the last float that a kernel may read, and what lies
// between their blocks is NaN.
#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include "check.hpp"
#include "engine/kernels/kernels.hpp"

namespace {

using namespace retinaface;
using namespace retinaface::engine;

constexpr float kCanary = -777.25F;
constexpr float kSlopes[] = {0.0F, 0.1F, 1.0F};

// An array that begins 4 bytes past an aligned address: nothing promises a kernel more.
class Floats {
  public:
    explicit Floats(std::size_t size, float value = kCanary) : floats_(size + 1, value) {}

    static Floats random(check::Random& random, std::size_t size) {
        Floats result(size);
        for (std::size_t i = 0; i < size; ++i) result[i] = check::uniform(random, -1, 1);
        return result;
    }

    [[nodiscard]] float* data() { return floats_.data() + 1; }
    [[nodiscard]] const float* data() const { return floats_.data() + 1; }
    [[nodiscard]] float& operator[](std::size_t i) { return floats_.at(i + 1); }
    [[nodiscard]] float operator[](std::size_t i) const { return floats_.at(i + 1); }
    [[nodiscard]] bool has_bits_of(const Floats& other) const {
        return floats_.size() == other.floats_.size() &&
               std::memcmp(floats_.data(), other.floats_.data(), floats_.size() * sizeof(float)) == 0;
    }

  private:
    std::vector<float> floats_;
};

// A row of a feature map between the zeros that every row has. NaN is between one block and the next.
class PaddedRow {
  public:
    PaddedRow(check::Random& random, std::size_t blocks, std::size_t width)
        : block_stride_(kBlock * (1 + width + kRightPadding + 1)),
          floats_(blocks * block_stride_ - kBlock, std::numeric_limits<float>::quiet_NaN()) {
        for (std::size_t b = 0; b < blocks; ++b) {
            for (std::size_t i = 0; i < kBlock * (1 + width + kRightPadding); ++i) {
                const bool inside = i >= kBlock && i < kBlock * (1 + width);
                floats_[b * block_stride_ + i] = inside ? check::uniform(random, -1, 1) : 0.0F;
            }
        }
    }

    // The row above or below the picture.
    explicit PaddedRow(std::size_t width)
        : block_stride_(0), floats_(kBlock * (1 + width + kRightPadding), 0.0F) {}

    [[nodiscard]] Row row() const { return {floats_.data() + kBlock, block_stride_}; }

    // Column -1 is `column` 0.
    [[nodiscard]] double padded_at(std::size_t channel, std::size_t column) const {
        return double{floats_[channel / kBlock * block_stride_ + kBlock * column + channel % kBlock]};
    }

  private:
    std::size_t block_stride_;
    Floats floats_;
};

// What a sum should be, and the sum of the absolute values of its terms, on which rounding depends.
struct Sum {
    double value = 0;
    double magnitude = 0;

    void add(double term) {
        value += term;
        magnitude += std::abs(term);
    }

    // The leaky rectifier brings two numbers no further apart.
    void rectify(float slope) { value = std::max(value, double{slope} * value); }

    // Whether a float sum of `terms` products in any order, fused or not, may give `result`: each of at most
    // terms + 4 roundings on the way of a term is off by 2^-24 of what it rounds.
    [[nodiscard]] bool allows(float result, std::size_t terms) const {
        return std::abs(double{result} - value) <= static_cast<double>(terms + 4) * 0x1p-24 * magnitude;
    }
};

void converted_pixels_are_exact() {
    check::Random random(1);
    const float mean[3] = {104.0F, 117.0F, 122.7F};
    for (std::size_t width = 1; width <= 100; ++width) {
        std::vector<std::uint8_t> pixels(3 * width);
        for (std::uint8_t& byte : pixels) byte = static_cast<std::uint8_t>(random() >> 56U);
        Floats expected(3 * width + 16), out(3 * width + 16);
        for (std::size_t i = 0; i < 3 * width; ++i) {
            expected[8 + i] = static_cast<float>(double{static_cast<float>(pixels[i])} - double{mean[i % 3]});
        }
        engine_kernels().convert_row(pixels.data(), width, mean, out.data() + 8);
        CHECK(out.has_bits_of(expected));
    }
    std::vector<std::uint8_t> all(3 * 256);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint8_t>(i / 3);
    Floats out(all.size());
    engine_kernels().convert_row(all.data(), 256, mean, out.data());
    for (std::size_t i = 0; i < all.size(); ++i) CHECK(out[i] == static_cast<float>(i / 3) - mean[i % 3]);
}

void stem() {
    check::Random random(2);
    constexpr std::size_t kWidest = 41;
    for (const std::size_t blocks : {1U, 2U, 3U, 4U}) {
        for (const std::size_t odd : {0U, 1U}) {
            const float slope = kSlopes[(blocks + odd) % 3];
            const Floats weights = Floats::random(random, blocks * 27 * kBlock);
            const Floats bias = Floats::random(random, blocks * kBlock);
            // For an output row of `kWidest` columns; the narrower ones end in its middle.
            const std::size_t pixels = 2 * kWidest - odd;
            std::vector<Floats> rows, swapped;
            for (std::size_t ky = 0; ky < 3; ++ky) {
                rows.emplace_back(3 * pixels + 6, 0.0F);
                swapped.emplace_back(3 * pixels + 6, 0.0F);
                for (std::size_t i = 3; i < 3 + 3 * pixels; ++i)
                    rows[ky][i] = check::uniform(random, -128, 128);
                for (std::size_t i = 3; i < 3 + 3 * pixels; i += 3) {
                    for (std::size_t c = 0; c < 3; ++c) swapped[ky][i + c] = rows[ky][i + 2 - c];
                }
            }
            const auto run = [&](const std::vector<Floats>& from, std::size_t first, std::size_t width,
                                 bool rgb, MutableRow out) {
                const float* pixel[3];
                for (std::size_t ky = 0; ky < 3; ++ky) pixel[ky] = from[ky].data() + 3 + 6 * first;
                engine_kernels().stem_row(pixel, weights.data(), bias.data(), slope, blocks, width, rgb, out);
            };
            Floats single(kWidest * blocks * kBlock);
            for (std::size_t x = 0; x < kWidest; ++x) {
                run(rows, x, 1, false, {single.data() + kBlock * x, kBlock * kWidest});
                for (std::size_t n = 0; n < blocks * kBlock; ++n) {
                    Sum sum;
                    sum.add(double{bias[n]});
                    for (std::size_t tap = 0; tap < 27; ++tap) {
                        const float pixel = rows[tap / 9][6 * x + tap % 9];
                        sum.add(double{pixel} *
                                double{weights[(n / kBlock * 27 + tap) * kBlock + n % kBlock]});
                    }
                    sum.rectify(slope);
                    CHECK(sum.allows(single[(n / kBlock * kWidest + x) * kBlock + n % kBlock], 27));
                }
            }
            for (std::size_t width = 1; width <= kWidest; ++width) {
                for (const std::size_t first : {std::size_t{0}, (kWidest - width) / 2, kWidest - width}) {
                    const std::size_t block_stride = kBlock * (width + 2);
                    Floats expected(blocks * block_stride), out(blocks * block_stride);
                    for (std::size_t b = 0; b < blocks; ++b) {
                        for (std::size_t i = 0; i < kBlock * width; ++i) {
                            expected[b * block_stride + kBlock + i] =
                                single[kBlock * (b * kWidest + first) + i];
                        }
                    }
                    run(rows, first, width, false, {out.data() + kBlock, block_stride});
                    CHECK(out.has_bits_of(expected));
                    Floats out_rgb(blocks * block_stride);
                    run(swapped, first, width, true, {out_rgb.data() + kBlock, block_stride});
                    CHECK(out_rgb.has_bits_of(expected));
                }
            }
        }
    }
}

// All windows of output columns of a row; `outside` is the row that is zeros, 1 for none.
void depthwise_windows(check::Random& random, std::size_t blocks, std::size_t stride, std::size_t in_width,
                       std::size_t outside, float slope) {
    const std::size_t out_width = (in_width + stride - 1) / stride;
    const Floats weights = Floats::random(random, blocks * 9 * kBlock);
    const Floats bias = Floats::random(random, blocks * kBlock);
    std::vector<PaddedRow> inputs;
    for (std::size_t ky = 0; ky < 3; ++ky) {
        inputs.push_back(ky == outside && ky != 1 ? PaddedRow(in_width)
                                                  : PaddedRow(random, blocks, in_width));
    }
    const Row rows[3] = {inputs[0].row(), inputs[1].row(), inputs[2].row()};
    Floats single(out_width * blocks * kBlock);
    for (std::size_t x = 0; x < out_width; ++x) {
        engine_kernels().depthwise_row(rows, weights.data(), bias.data(), slope, blocks, stride, x, 1,
                                       {single.data() + kBlock * x, kBlock * out_width});
        for (std::size_t n = 0; n < blocks * kBlock; ++n) {
            Sum sum;
            sum.add(double{bias[n]});
            for (std::size_t tap = 0; tap < 9; ++tap) {
                sum.add(inputs[tap / 3].padded_at(n, stride * x + tap % 3) *
                        double{weights[(n / kBlock * 9 + tap) * kBlock + n % kBlock]});
            }
            sum.rectify(slope);
            CHECK(sum.allows(single[(n / kBlock * out_width + x) * kBlock + n % kBlock], 9));
        }
    }
    for (std::size_t first = 0; first < out_width; ++first) {
        for (std::size_t count = 1; count <= out_width - first; ++count) {
            const std::size_t block_stride = kBlock * (count + 2);
            Floats expected(blocks * block_stride), out(blocks * block_stride);
            for (std::size_t b = 0; b < blocks; ++b) {
                for (std::size_t i = 0; i < kBlock * count; ++i) {
                    expected[b * block_stride + kBlock + i] = single[kBlock * (b * out_width + first) + i];
                }
            }
            engine_kernels().depthwise_row(rows, weights.data(), bias.data(), slope, blocks, stride, first,
                                           count, {out.data() + kBlock, block_stride});
            CHECK(out.has_bits_of(expected));
        }
    }
}

void depthwise() {
    check::Random random(3);
    for (const std::size_t stride : {1U, 2U}) {
        for (std::size_t width = 1; width <= 41; ++width) {
            depthwise_windows(random, 1 + width % 3, stride, width, width % 3, kSlopes[(width / 3) % 3]);
        }
        for (const std::size_t blocks : {1U, 2U, 3U, 8U, 16U}) {
            depthwise_windows(random, blocks, stride, 18, 1, 0.1F);
            depthwise_windows(random, blocks, stride, 19, 2, 0.0F);
        }
    }
}

// All lengths at the beginning, in the middle and at the end of a row of `kWidest` columns, of which the last
// is the end of what may be read.
void pointwise_windows(check::Random& random, std::size_t channels, std::size_t panels, bool with_addend,
                       float slope) {
    constexpr std::size_t kWidest = 41;
    const std::size_t outputs = panels * kPanel;
    const Floats in = Floats::random(random, channels * kWidest);
    const Floats weights = Floats::random(random, channels * outputs);
    const Floats bias = Floats::random(random, outputs);
    constexpr std::size_t kCoarse = (kWidest + 1) / 2;
    const Floats addend = Floats::random(random, outputs * kCoarse);
    const Row addend_row{with_addend ? addend.data() : nullptr, kBlock * kCoarse};
    const auto run = [&](std::size_t first, std::size_t count, MutableRow out) {
        engine_kernels().pointwise_row({in.data() + kBlock * first, kBlock * kWidest}, channels,
                                       weights.data(), bias.data(), slope, panels, count, addend_row, first,
                                       out);
    };
    Floats single(outputs * kWidest);
    for (std::size_t x = 0; x < kWidest; ++x) {
        run(x, 1, {single.data() + kBlock * x, kBlock * kWidest});
        for (std::size_t n = 0; n < outputs; ++n) {
            Sum sum;
            sum.add(double{bias[n]});
            for (std::size_t k = 0; k < channels; ++k) {
                sum.add(double{in[(k / kBlock * kWidest + x) * kBlock + k % kBlock]} *
                        double{weights[(n / kPanel * channels + k) * kPanel + n % kPanel]});
            }
            sum.rectify(slope);
            if (with_addend) sum.add(double{addend[(n / kBlock * kCoarse + x / 2) * kBlock + n % kBlock]});
            CHECK(sum.allows(single[(n / kBlock * kWidest + x) * kBlock + n % kBlock], channels));
        }
    }
    for (std::size_t count = 1; count <= kWidest; ++count) {
        for (const std::size_t first : {std::size_t{0}, (kWidest - count) / 2, kWidest - count}) {
            const std::size_t block_stride = kBlock * (count + 2);
            Floats expected(outputs / kBlock * block_stride), out(outputs / kBlock * block_stride);
            for (std::size_t b = 0; b < outputs / kBlock; ++b) {
                for (std::size_t i = 0; i < kBlock * count; ++i) {
                    expected[b * block_stride + kBlock + i] = single[kBlock * (b * kWidest + first) + i];
                }
            }
            run(first, count, {out.data() + kBlock, block_stride});
            CHECK(out.has_bits_of(expected));
        }
    }
}

void pointwise() {
    check::Random random(4);
    std::size_t turn = 0;
    for (const std::size_t channels : {8U, 16U, 24U, 64U, 128U}) {
        for (const std::size_t panels : {1U, 2U, 3U, 4U, 5U}) {
            for (const bool with_addend : {false, true}) {
                pointwise_windows(random, channels, panels, with_addend, kSlopes[turn++ % 3]);
            }
        }
    }
    pointwise_windows(random, 256, 2, true, 0.0F);
}

using Matrix6 = std::array<std::array<double, 6>, 6>;

constexpr Matrix6 kInputTransform = {{{4, 0, -5, 0, 1, 0},
                                      {0, -4, -4, 1, 1, 0},
                                      {0, 4, -4, -1, 1, 0},
                                      {0, -2, -1, 2, 1, 0},
                                      {0, 2, -1, -2, 1, 0},
                                      {0, 4, 0, -5, 0, 1}}};
constexpr std::array<std::array<double, 6>, 4> kOutputTransform = {
    {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}}};
constexpr std::array<std::array<double, 3>, 6> kWeightTransform = {{{1.0 / 4, 0, 0},
                                                                    {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                                                    {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                                                    {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                                                    {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                                                    {0, 0, 1}}};

void winograd_input_tiles(check::Random& random, std::size_t blocks, std::size_t width, std::size_t outside) {
    const std::size_t tiles = (width + kTile - 1) / kTile;
    std::vector<PaddedRow> inputs;
    for (std::size_t y = 0; y < kPatch; ++y) {
        inputs.push_back(y == outside ? PaddedRow(width) : PaddedRow(random, blocks, width));
    }
    const auto run = [&](std::size_t first, std::size_t count, std::size_t position_stride,
                         std::size_t block_stride, float* out) {
        Row rows[kPatch];
        for (std::size_t y = 0; y < kPatch; ++y) {
            rows[y] = inputs[y].row();
            rows[y].data += kBlock * kTile * first;
        }
        engine_kernels().winograd_input(rows, blocks, count, position_stride, block_stride, out);
    };
    // Of tile t, position p and channel c: [(t * kPositions + p) * channels + c].
    const std::size_t channels = blocks * kBlock;
    Floats single(tiles * kPositions * channels);
    for (std::size_t t = 0; t < tiles; ++t) {
        run(t, 1, channels, kBlock, single.data() + t * kPositions * channels);
        for (std::size_t p = 0; p < kPositions; ++p) {
            for (std::size_t c = 0; c < channels; ++c) {
                Sum sum;
                for (std::size_t i = 0; i < kPositions; ++i) {
                    sum.add(kInputTransform[p / kPatch][i / kPatch] *
                            kInputTransform[p % kPatch][i % kPatch] *
                            inputs[i / kPatch].padded_at(c, kTile * t + i % kPatch));
                }
                CHECK(sum.allows(single[(t * kPositions + p) * channels + c], 6));
            }
        }
    }
    for (std::size_t first = 0; first < tiles; ++first) {
        for (std::size_t count = 1; count <= tiles - first; ++count) {
            const std::size_t block_stride = kBlock * count + kBlock;
            const std::size_t position_stride = blocks * block_stride + 16;
            Floats expected(kPositions * position_stride), out(kPositions * position_stride);
            for (std::size_t i = 0; i < count * kPositions * channels; ++i) {
                const std::size_t t = i / (kPositions * channels);
                const std::size_t p = i / channels % kPositions;
                const std::size_t c = i % channels;
                expected[p * position_stride + c / kBlock * block_stride + kBlock * (t + 1) + c % kBlock] =
                    single[first * kPositions * channels + i];
            }
            run(first, count, position_stride, block_stride, out.data() + kBlock);
            CHECK(out.has_bits_of(expected));
        }
    }
}

void winograd_input() {
    check::Random random(5);
    for (std::size_t width = 1; width <= 29; ++width) {
        winograd_input_tiles(random, 1 + width % 3, width, width % 7);
    }
    winograd_input_tiles(random, 8, 39, 0);
}

void winograd_multiply() {
    check::Random random(6);
    constexpr std::size_t kTiles = 29;
    for (const std::size_t channels : {8U, 16U, 24U, 64U, 128U}) {
        // With room between positions that is not to be read.
        const std::size_t block_stride = kBlock * kTiles;
        const std::size_t position_stride = channels * kTiles + 16;
        Floats in(kPositions * position_stride - 16, std::numeric_limits<float>::quiet_NaN());
        for (std::size_t p = 0; p < kPositions; ++p) {
            for (std::size_t i = 0; i < channels * kTiles; ++i) {
                in[p * position_stride + i] = check::uniform(random, -1, 1);
            }
        }
        const Floats weights = Floats::random(random, kPositions * channels * kPanel);
        const auto run = [&](std::size_t first, std::size_t count, std::size_t out_position_stride,
                             float* out) {
            engine_kernels().winograd_multiply(in.data() + kBlock * first, position_stride, block_stride,
                                               channels, weights.data(), count, out_position_stride, out);
        };
        Floats single(kTiles * kPositions * kPanel);
        for (std::size_t t = 0; t < kTiles; ++t) {
            run(t, 1, kPanel, single.data() + t * kPositions * kPanel);
            for (std::size_t p = 0; p < kPositions; ++p) {
                for (std::size_t n = 0; n < kPanel; ++n) {
                    Sum sum;
                    for (std::size_t k = 0; k < channels; ++k) {
                        sum.add(double{in[p * position_stride + k / kBlock * block_stride + kBlock * t +
                                          k % kBlock]} *
                                double{weights[(p * channels + k) * kPanel + n]});
                    }
                    CHECK(sum.allows(single[(t * kPositions + p) * kPanel + n], channels));
                }
            }
        }
        for (std::size_t count = 1; count <= kTiles; ++count) {
            for (const std::size_t first : {std::size_t{0}, kTiles - count}) {
                const std::size_t out_position_stride = kPanel * count + 16;
                Floats expected(kPositions * out_position_stride), out(kPositions * out_position_stride);
                for (std::size_t i = 0; i < count * kPositions * kPanel; ++i) {
                    const std::size_t t = i / (kPositions * kPanel);
                    const std::size_t p = i / kPanel % kPositions;
                    const std::size_t n = i % kPanel;
                    expected[8 + p * out_position_stride + (n / kBlock * count + t) * kBlock + n % kBlock] =
                        single[first * kPositions * kPanel + i];
                }
                run(first, count, out_position_stride, out.data() + 8);
                CHECK(out.has_bits_of(expected));
            }
        }
    }
}

void winograd_output() {
    check::Random random(7);
    constexpr std::size_t kTiles = 11;
    const std::size_t position_stride = kBlock * kTiles + 16;
    Floats in(kPositions * position_stride - 16, std::numeric_limits<float>::quiet_NaN());
    for (std::size_t p = 0; p < kPositions; ++p) {
        for (std::size_t i = 0; i < kBlock * kTiles; ++i) {
            in[p * position_stride + i] = check::uniform(random, -1, 1);
        }
    }
    const Floats bias = Floats::random(random, kBlock);
    for (const float slope : kSlopes) {
        const auto run = [&](std::size_t first, std::size_t rows, std::size_t columns, float* const* out) {
            engine_kernels().winograd_output(in.data() + kBlock * first, position_stride,
                                             (columns + kTile - 1) / kTile, bias.data(), slope, rows, columns,
                                             out);
        };
        // Of row y and column x: [(y * kTile * kTiles + x) * kBlock], each from a tile of its own.
        Floats single(kTile * kTiles * kTile * kBlock);
        for (std::size_t t = 0; t < kTiles; ++t) {
            float* out[kTile];
            for (std::size_t y = 0; y < kTile; ++y) {
                out[y] = single.data() + (y * kTiles + t) * kTile * kBlock;
            }
            run(t, kTile, kTile, out);
            for (std::size_t i = 0; i < kTile * kTile * kBlock; ++i) {
                const std::size_t y = i / (kTile * kBlock);
                const std::size_t x = i / kBlock % kTile;
                const std::size_t c = i % kBlock;
                Sum sum;
                sum.add(double{bias[c]});
                for (std::size_t p = 0; p < kPositions; ++p) {
                    sum.add(kOutputTransform[y][p / kPatch] * kOutputTransform[x][p % kPatch] *
                            double{in[p * position_stride + kBlock * t + c]});
                }
                sum.rectify(slope);
                CHECK(sum.allows(single[((y * kTiles + t) * kTile + x) * kBlock + c], 8));
            }
        }
        for (std::size_t rows = 1; rows <= kTile; ++rows) {
            for (std::size_t columns = 1; columns <= kTile * kTiles; ++columns) {
                const std::size_t tiles = (columns + kTile - 1) / kTile;
                for (const std::size_t first : {std::size_t{0}, kTiles - tiles}) {
                    const std::size_t row_stride = kBlock * (columns + 2);
                    Floats expected(kTile * row_stride), all(kTile * row_stride);
                    float* out[kTile];
                    for (std::size_t y = 0; y < kTile; ++y) {
                        // A row that is not to be written may not be there.
                        out[y] = y < rows ? all.data() + y * row_stride + kBlock : nullptr;
                        for (std::size_t i = 0; y < rows && i < kBlock * columns; ++i) {
                            expected[y * row_stride + kBlock + i] =
                                single[(y * kTiles + first) * kTile * kBlock + i];
                        }
                    }
                    run(first, rows, columns, out);
                    CHECK(all.has_bits_of(expected));
                }
            }
        }
    }
}

// The three steps one after another are a 3x3 convolution. In sums of n products of numbers that are uniform
// around zero, an error of 2e-6 of the sum of their absolute values is what the transforms leave.
void winograd_is_a_convolution() {
    check::Random random(8);
    for (const std::size_t channels : {8U, 24U, 64U}) {
        for (const std::size_t width : {1U, 3U, 4U, 9U, 18U}) {
            const std::size_t blocks = channels / kBlock;
            const std::size_t tiles = (width + kTile - 1) / kTile;
            std::vector<PaddedRow> inputs;
            for (std::size_t y = 0; y < kPatch; ++y) inputs.emplace_back(random, blocks, width);
            Row rows[kPatch];
            for (std::size_t y = 0; y < kPatch; ++y) rows[y] = inputs[y].row();
            // Tap, input channel, output channel.
            const Floats weights = Floats::random(random, 9 * channels * kPanel);
            const Floats bias = Floats::random(random, kPanel);
            Floats transformed(kPositions * channels * kPanel);
            for (std::size_t p = 0; p < kPositions; ++p) {
                for (std::size_t i = 0; i < channels * kPanel; ++i) {
                    double sum = 0;
                    for (std::size_t tap = 0; tap < 9; ++tap) {
                        sum += kWeightTransform[p / kPatch][tap / 3] * kWeightTransform[p % kPatch][tap % 3] *
                               double{weights[tap * channels * kPanel + i]};
                    }
                    transformed[p * channels * kPanel + i] = static_cast<float>(sum);
                }
            }
            const EngineKernels& kernels = engine_kernels();
            Floats patches(kPositions * channels * tiles), products(kPositions * kPanel * tiles);
            kernels.winograd_input(rows, blocks, tiles, channels * tiles, kBlock * tiles, patches.data());
            kernels.winograd_multiply(patches.data(), channels * tiles, kBlock * tiles, channels,
                                      transformed.data(), tiles, kPanel * tiles, products.data());
            Floats result(kPanel * kTile * width);
            for (std::size_t h = 0; h < kPanel / kBlock; ++h) {
                float* out[kTile];
                for (std::size_t y = 0; y < kTile; ++y) {
                    out[y] = result.data() + (h * kTile + y) * kBlock * width;
                }
                kernels.winograd_output(products.data() + h * kBlock * tiles, kPanel * tiles, tiles,
                                        bias.data() + kBlock * h, 0.1F, kTile, width, out);
            }
            for (std::size_t i = 0; i < kPanel * kTile * width; ++i) {
                const std::size_t n = i / (kTile * width * kBlock) * kBlock + i % kBlock;
                const std::size_t y = i / (width * kBlock) % kTile;
                const std::size_t x = i / kBlock % width;
                Sum sum;
                sum.add(double{bias[n]});
                for (std::size_t tap = 0; tap < 9; ++tap) {
                    for (std::size_t c = 0; c < channels; ++c) {
                        sum.add(inputs[y + tap / 3].padded_at(c, x + tap % 3) *
                                double{weights[(tap * channels + c) * kPanel + n]});
                    }
                }
                sum.rectify(0.1F);
                CHECK(std::abs(double{result[i]} - sum.value) <= 2e-6 * sum.magnitude);
            }
        }
    }
}

void class_scores() {
    check::Random random(9);
    constexpr std::size_t kWidest = 41;
    for (const std::size_t channels : {8U, 16U, 24U, 64U, 128U}) {
        for (const std::size_t outputs : {2U, 4U, 6U, 8U}) {
            const Floats in = Floats::random(random, channels * kWidest);
            const Floats weights = Floats::random(random, outputs * channels);
            const Floats bias = Floats::random(random, outputs);
            const auto run = [&](std::size_t first, std::size_t width, float* out) {
                engine_kernels().class_scores_row({in.data() + kBlock * first, kBlock * kWidest}, channels,
                                                  weights.data(), bias.data(), outputs, width, out);
            };
            Floats single(kWidest * outputs);
            for (std::size_t x = 0; x < kWidest; ++x) {
                run(x, 1, single.data() + x * outputs);
                for (std::size_t o = 0; o < outputs; ++o) {
                    Sum sum;
                    sum.add(double{bias[o]});
                    for (std::size_t k = 0; k < channels; ++k) {
                        sum.add(double{in[(k / kBlock * kWidest + x) * kBlock + k % kBlock]} *
                                double{weights[o * channels + k]});
                    }
                    CHECK(sum.allows(single[x * outputs + o], channels));
                }
            }
            for (std::size_t width = 1; width <= kWidest; ++width) {
                for (const std::size_t first : {std::size_t{0}, (kWidest - width) / 2, kWidest - width}) {
                    Floats expected(width * outputs + 16), out(width * outputs + 16);
                    for (std::size_t i = 0; i < width * outputs; ++i) {
                        expected[8 + i] = single[first * outputs + i];
                    }
                    run(first, width, out.data() + 8);
                    CHECK(out.has_bits_of(expected));
                }
            }
        }
    }
}

// One table, filled: a level that misses an entry would call address 0.
void table_is_complete() {
    const EngineKernels& kernels = engine_kernels();
    CHECK(&kernels == &engine_kernels());
    CHECK(kernels.convert_row != nullptr && kernels.stem_row != nullptr && kernels.depthwise_row != nullptr &&
          kernels.pointwise_row != nullptr && kernels.winograd_input != nullptr &&
          kernels.winograd_multiply != nullptr && kernels.winograd_output != nullptr &&
          kernels.class_scores_row != nullptr);
    // Each level has a table of its own; that a level runs another one's would hide it from every test.
    CHECK((&kernels == &kScalarEngineKernels) == (active_simd_level() == SimdLevel::scalar));
}

}  // namespace

CHECK_MAIN(table_is_complete, converted_pixels_are_exact, stem, depthwise, pointwise, winograd_input,
           winograd_multiply, winograd_output, winograd_is_a_convolution, class_scores)
