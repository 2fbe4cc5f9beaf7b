// The kernels that are the same for every vector instruction set. An instruction set's file includes this
// inside its anonymous namespace, after it has defined
//   Vec8                                          8 floats, one block of channels
//   load, store, broadcast, zero8                 unaligned memory
//   load_bytes                                    8 bytes as floats
//   add, subtract, multiply, maximum              lane by lane
//   multiply_add(a, b, c) = a * b + c, subtract_product(a, b, c) = c - a * b, each with one rounding
//   store_sums4(a, b, c, d, out)                  out[i] = sum of the lanes of the i-th
//   kStemColumns                                  columns of the first convolution that its registers hold
//   multiply_panel(...)                           see above pointwise_row
// so that no function here can be merged with the twin of another instruction set at link time.

// The same pointer, of which the compiler no longer knows where it points.
inline const float* hidden(const float* pointer) {
#ifdef __GNUC__
    __asm__ volatile("" : "+r"(pointer));  // NOLINT(portability-no-assembler)
#endif
    return pointer;
}

inline void fetch(const float* from) {
#ifdef __GNUC__
    __builtin_prefetch(from);
#else
    static_cast<void>(from);
#endif
}

// Blocks from which on a row is called wide.
constexpr std::size_t kWideBlocks = 8;

// Bounds the scratch of a transform on the stack.
constexpr std::size_t kTilesAtOnce = 8;

inline Vec8 rectify(Vec8 x, Vec8 slope) { return maximum(x, multiply(x, slope)); }

void convert_row(const std::uint8_t* pixels, std::size_t width, const float* mean, float* out) noexcept {
    const std::size_t n = 3 * width;
    std::size_t i = 0;
    if (n >= 24) {
        float pattern[24];
        for (std::size_t j = 0; j < 24; ++j) pattern[j] = mean[j % 3];
        const Vec8 mean0 = load(pattern);
        const Vec8 mean1 = load(pattern + 8);
        const Vec8 mean2 = load(pattern + 16);
        for (; i + 24 <= n; i += 24) {
            store(out + i, subtract(load_bytes(pixels + i), mean0));
            store(out + i + 8, subtract(load_bytes(pixels + i + 8), mean1));
            store(out + i + 16, subtract(load_bytes(pixels + i + 16), mean2));
        }
    }
    for (; i < n; ++i) out[i] = static_cast<float>(pixels[i]) - mean[i % 3];
}

// `count` columns of one block. The taps of a column are three pixels of each row; the step from column to
// column is two pixels.
template <std::size_t count, bool rgb>
inline void stem_columns(const float* const* rows, const float* weights, Vec8 bias, Vec8 slope, std::size_t x,
                         float* out) {
    Vec8 sum[count];
    for (std::size_t j = 0; j < count; ++j) sum[j] = bias;
    for (std::size_t ky = 0; ky < 3; ++ky) {
        const float* pixel = rows[ky] + 6 * x - 3;
        for (std::size_t kx = 0; kx < 3; ++kx) {
            // A column's last pixel is the next column's first: a compiler that sees it keeps the value for
            // later in a register that it has not got.
            pixel = hidden(pixel);
#pragma GCC unroll 3
            for (std::size_t channel = 0; channel < 3; ++channel) {
                const Vec8 weight = load(weights + 8 * channel);
                const float* const value = pixel + (rgb ? 2 - channel : channel);
#pragma GCC unroll 16
                for (std::size_t j = 0; j < count; ++j) {
                    sum[j] = multiply_add(broadcast(value[6 * j]), weight, sum[j]);
                }
            }
            weights += 24;
            pixel += 3;
        }
    }
    for (std::size_t j = 0; j < count; ++j) store(out + 8 * (x + j), rectify(sum[j], slope));
}

template <bool rgb>
inline void stem_row_of(const float* const* rows, const float* weights, const float* bias, float slope,
                        std::size_t blocks, std::size_t width, MutableRow out) {
    const Vec8 slopes = broadcast(slope);
    for (std::size_t b = 0; b < blocks; ++b) {
        const float* const weight = weights + 216 * b;
        const Vec8 biases = load(bias + 8 * b);
        float* const line = out.data + b * out.block_stride;
        std::size_t x = 0;
        for (; x + kStemColumns <= width; x += kStemColumns) {
            stem_columns<kStemColumns, rgb>(rows, weight, biases, slopes, x, line);
        }
        if (x < width && width >= kStemColumns) {
            // The last columns once more, some of them for the second time, with the same result.
            stem_columns<kStemColumns, rgb>(rows, weight, biases, slopes, width - kStemColumns, line);
            x = width;
        }
        for (; x < width; ++x) stem_columns<1, rgb>(rows, weight, biases, slopes, x, line);
    }
}

void stem_row(const float* const* rows, const float* weights, const float* bias, float slope,
              std::size_t blocks, std::size_t width, bool rgb, MutableRow out) noexcept {
    if (rgb) {
        stem_row_of<true>(rows, weights, bias, slope, blocks, width, out);
    } else {
        stem_row_of<false>(rows, weights, bias, slope, blocks, width, out);
    }
}

// `count` columns of one block from output column x on: enough sums that the multipliers need not wait for
// them, and each input is loaded once for all the columns that read it.
template <std::size_t count, std::size_t stride>
inline void depthwise_columns(const float* const* rows, const float* weights, Vec8 bias, Vec8 slope,
                              std::size_t x, float* out) {
    Vec8 sum[count];
    for (std::size_t j = 0; j < count; ++j) sum[j] = bias;
    for (std::size_t ky = 0; ky < 3; ++ky) {
        const float* const row = hidden(rows[ky] + 8 * stride * x - 8);
        const Vec8 weight[3] = {load(weights), load(weights + 8), load(weights + 16)};
        weights += 24;
#pragma GCC unroll 32
        for (std::size_t i = 0; i < stride * (count - 1) + 3; ++i) {
            const Vec8 value = load(row + 8 * i);
#pragma GCC unroll 3
            for (std::size_t kx = 0; kx < 3; ++kx) {
                if (i < kx || (i - kx) % stride != 0 || (i - kx) / stride >= count) continue;
                const std::size_t j = (i - kx) / stride;
                sum[j] = multiply_add(value, weight[kx], sum[j]);
            }
        }
    }
    for (std::size_t j = 0; j < count; ++j) store(out + 8 * j, rectify(sum[j], slope));
}

template <std::size_t stride>
inline void depthwise_row_of(const Row* rows, const float* weights, const float* bias, float slope,
                             std::size_t blocks, std::size_t first, std::size_t count, MutableRow out) {
    const Vec8 slopes = broadcast(slope);
    // Rows of many blocks are not in the first level of the cache, and a block's part of a row is too short
    // for the CPU's own prefetcher: the next block's columns are fetched ahead. 1 % of the network at 1920 x
    // 1080.
    const bool wide = blocks >= kWideBlocks;
    for (std::size_t b = 0; b < blocks; ++b) {
        const float* const weight = weights + 72 * b;
        const Vec8 biases = load(bias + 8 * b);
        const float* const lines[3] = {rows[0].data + b * rows[0].block_stride,
                                       rows[1].data + b * rows[1].block_stride,
                                       rows[2].data + b * rows[2].block_stride};
        float* const line = out.data + b * out.block_stride;
        std::size_t j = 0;
        for (; j + 8 <= count; j += 8) {
            if (wide) {
                for (std::size_t ky = 0; ky < 3; ++ky) {
                    const float* const next = lines[ky] + rows[ky].block_stride + 8 * stride * (first + j);
                    for (std::size_t i = 0; i < 64 * stride; i += 16) fetch(next + i);
                }
            }
            depthwise_columns<8, stride>(lines, weight, biases, slopes, first + j, line + 8 * j);
        }
        for (; j + 4 <= count; j += 4) {
            depthwise_columns<4, stride>(lines, weight, biases, slopes, first + j, line + 8 * j);
        }
        for (; j < count; ++j) {
            depthwise_columns<1, stride>(lines, weight, biases, slopes, first + j, line + 8 * j);
        }
    }
}

void depthwise_row(const Row* rows, const float* weights, const float* bias, float slope, std::size_t blocks,
                   std::size_t stride, std::size_t first, std::size_t count, MutableRow out) noexcept {
    if (stride == 1) {
        depthwise_row_of<1>(rows, weights, bias, slope, blocks, first, count, out);
    } else {
        depthwise_row_of<2>(rows, weights, bias, slope, blocks, first, count, out);
    }
}

// What becomes of a pair of sums, 16 channels of one column.
struct Rectified {
    Vec8 slope;
    float* out;
    std::size_t block_stride;
    void operator()(std::size_t x, Vec8 low, Vec8 high) const {
        store(out + 8 * x, rectify(low, slope));
        store(out + block_stride + 8 * x, rectify(high, slope));
    }
};

struct RectifiedPlusUpsampled {
    Vec8 slope;
    const float* addend;
    std::size_t addend_stride;
    std::size_t first;
    float* out;
    std::size_t block_stride;
    void operator()(std::size_t x, Vec8 low, Vec8 high) const {
        const float* const coarse = addend + (first + x) / 2 * 8;
        store(out + 8 * x, add(rectify(low, slope), load(coarse)));
        store(out + block_stride + 8 * x, add(rectify(high, slope), load(coarse + addend_stride)));
    }
};

struct Plain {
    float* out;
    std::size_t block_stride;
    void operator()(std::size_t x, Vec8 low, Vec8 high) const {
        store(out + 8 * x, low);
        store(out + block_stride + 8 * x, high);
    }
};

// multiply_panel<Sink>(in, block_stride, in_channels, weights, bias, count, sink): for each column x < count
// the 16 sums bias[n] + sum over k of in[(k / 8) * block_stride + 8 * x + k % 8] * weights[16 * k + n], k
// ascending, one multiply_add each; sink(x, low 8, high 8).

void pointwise_row(Row in, std::size_t in_channels, const float* weights, const float* bias, float slope,
                   std::size_t panels, std::size_t count, Row addend, std::size_t first,
                   MutableRow out) noexcept {
    const Vec8 slopes = broadcast(slope);
    for (std::size_t panel = 0; panel < panels; ++panel) {
        const float* const weight = weights + panel * in_channels * 16;
        float* const line = out.data + 2 * panel * out.block_stride;
        if (addend.data == nullptr) {
            multiply_panel(in.data, in.block_stride, in_channels, weight, bias + 16 * panel, count,
                           Rectified{slopes, line, out.block_stride});
        } else {
            multiply_panel(in.data, in.block_stride, in_channels, weight, bias + 16 * panel, count,
                           RectifiedPlusUpsampled{slopes, addend.data + 2 * panel * addend.block_stride,
                                                  addend.block_stride, first, line, out.block_stride});
        }
    }
}

void winograd_multiply(const float* in, std::size_t position_stride, std::size_t block_stride,
                       std::size_t in_channels, const float* weights, std::size_t count,
                       std::size_t out_position_stride, float* out) noexcept {
    alignas(32) static const float no_bias[16] = {};
    for (std::size_t p = 0; p < kPositions; ++p) {
        multiply_panel(in + p * position_stride, block_stride, in_channels, weights + p * in_channels * 16,
                       no_bias, count, Plain{out + p * out_position_stride, 8 * count});
    }
}

// The rows of the matrix B^T of F(4x4, 3x3) for the interpolation points 0, 1, -1, 2, -2 and infinity.
struct InputTransform {
    Vec8 two = broadcast(2.0F);
    Vec8 four = broadcast(4.0F);
    Vec8 five = broadcast(5.0F);
    void operator()(const Vec8* d, Vec8* t) const {
        const Vec8 even = subtract_product(four, d[2], d[4]);
        const Vec8 odd = subtract_product(four, d[1], d[3]);
        const Vec8 near = subtract(d[4], d[2]);
        const Vec8 far = subtract(d[3], d[1]);
        t[0] = multiply_add(four, d[0], subtract_product(five, d[2], d[4]));
        t[1] = add(even, odd);
        t[2] = subtract(even, odd);
        t[3] = multiply_add(two, far, near);
        t[4] = subtract_product(two, far, near);
        t[5] = multiply_add(four, d[1], subtract_product(five, d[3], d[5]));
    }
};

// And those of A^T.
struct OutputTransform {
    Vec8 two = broadcast(2.0F);
    Vec8 four = broadcast(4.0F);
    Vec8 eight = broadcast(8.0F);
    void operator()(const Vec8* m, Vec8* y) const {
        const Vec8 sum1 = add(m[1], m[2]);
        const Vec8 difference1 = subtract(m[1], m[2]);
        const Vec8 sum2 = add(m[3], m[4]);
        const Vec8 difference2 = subtract(m[3], m[4]);
        y[0] = add(add(m[0], sum1), sum2);
        y[1] = multiply_add(two, difference2, difference1);
        y[2] = multiply_add(four, sum2, sum1);
        y[3] = add(multiply_add(eight, difference2, difference1), m[5]);
    }
};

void winograd_input(const Row* rows, std::size_t blocks, std::size_t count, std::size_t position_stride,
                    std::size_t block_stride, float* out) noexcept {
    const InputTransform transform;
    // Columns first, each once although two tiles read it.
    float columns[kPatch * (kTile * kTilesAtOnce + 2) * 8];
    constexpr std::size_t line = (kTile * kTilesAtOnce + 2) * 8;
    for (std::size_t b = 0; b < blocks; ++b) {
        for (std::size_t done = 0; done < count; done += kTilesAtOnce) {
            const std::size_t tiles = count - done < kTilesAtOnce ? count - done : kTilesAtOnce;
            const float* in[kPatch];
            for (std::size_t i = 0; i < kPatch; ++i) {
                in[i] = rows[i].data + b * rows[i].block_stride + 8 * kTile * done - 8;
            }
            for (std::size_t x = 0; x < kTile * tiles + 2; ++x) {
                Vec8 d[kPatch];
                Vec8 t[kPatch];
#pragma GCC unroll 6
                for (std::size_t i = 0; i < kPatch; ++i) d[i] = load(in[i] + 8 * x);
                transform(d, t);
#pragma GCC unroll 6
                for (std::size_t i = 0; i < kPatch; ++i) store(columns + i * line + 8 * x, t[i]);
            }
            float* const to = out + b * block_stride + 8 * done;
            for (std::size_t i = 0; i < kPatch; ++i) {
                float* const positions = to + kPatch * i * position_stride;
                for (std::size_t tile = 0; tile < tiles; ++tile) {
                    const float* const from = columns + i * line + 8 * kTile * tile;
                    Vec8 d[kPatch];
                    Vec8 t[kPatch];
#pragma GCC unroll 6
                    for (std::size_t j = 0; j < kPatch; ++j) d[j] = load(from + 8 * j);
                    transform(d, t);
#pragma GCC unroll 6
                    for (std::size_t j = 0; j < kPatch; ++j) {
                        store(positions + j * position_stride + 8 * tile, t[j]);
                    }
                }
            }
        }
    }
}

void winograd_output(const float* in, std::size_t position_stride, std::size_t count, const float* bias,
                     float slope, std::size_t valid_rows, std::size_t valid_columns,
                     float* const* out) noexcept {
    const OutputTransform transform;
    const Vec8 biases = load(bias);
    const Vec8 slopes = broadcast(slope);
    for (std::size_t tile = 0; tile < count; ++tile) {
        float columns[kTile * kPatch * 8];
        const float* from = in + 8 * tile;
        for (std::size_t j = 0; j < kPatch; ++j) {
            // One column after the other: unrolled, the loop has more addresses than there are registers.
            from = hidden(from);
            Vec8 m[kPatch];
            Vec8 y[kTile];
#pragma GCC unroll 6
            for (std::size_t i = 0; i < kPatch; ++i) m[i] = load(from + kPatch * i * position_stride);
            transform(m, y);
#pragma GCC unroll 4
            for (std::size_t i = 0; i < kTile; ++i) store(columns + (kPatch * i + j) * 8, y[i]);
            from += position_stride;
        }
        const std::size_t left = valid_columns - kTile * tile;
        for (std::size_t i = 0; i < valid_rows; ++i) {
            Vec8 m[kPatch];
            Vec8 y[kTile];
#pragma GCC unroll 6
            for (std::size_t j = 0; j < kPatch; ++j) m[j] = load(columns + (kPatch * i + j) * 8);
            transform(m, y);
            float* const to = out[i] + 8 * kTile * tile;
            if (left >= kTile) {
#pragma GCC unroll 4
                for (std::size_t j = 0; j < kTile; ++j) store(to + 8 * j, rectify(add(y[j], biases), slopes));
            } else {
                // Not into the padding, which stays zero.
                for (std::size_t j = 0; j < left; ++j) store(to + 8 * j, rectify(add(y[j], biases), slopes));
            }
        }
    }
}

void class_scores_row(Row in, std::size_t channels, const float* weights, const float* bias,
                      std::size_t outputs, std::size_t width, float* out) noexcept {
    for (std::size_t x = 0; x < width; ++x) {
        const float* const column = in.data + 8 * x;
        for (std::size_t o = 0; o < outputs; o += 4) {
            // Outputs come in pairs; a last pair is computed twice.
            const bool four = o + 4 <= outputs;
            const float* const weight = weights + o * channels;
            const std::size_t other = four ? 2 * channels : 0;
            Vec8 sum[4] = {zero8(), zero8(), zero8(), zero8()};
            const float* value = column;
            for (std::size_t c = 0; c < channels; c += 8) {
                const Vec8 v = load(value);
                value += in.block_stride;
                sum[0] = multiply_add(v, load(weight + c), sum[0]);
                sum[1] = multiply_add(v, load(weight + channels + c), sum[1]);
                sum[2] = multiply_add(v, load(weight + other + c), sum[2]);
                sum[3] = multiply_add(v, load(weight + other + channels + c), sum[3]);
            }
            float sums[4];
            store_sums4(sum[0], sum[1], sum[2], sum[3], sums);
            for (std::size_t i = 0; i < (four ? 4U : 2U); ++i) {
                out[x * outputs + o + i] = sums[i] + bias[o + i];
            }
        }
    }
}
