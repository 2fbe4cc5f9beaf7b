// The network written down as plainly as can be, in double: what the engine is compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "random_network.hpp"
#include "retinaface/engine.hpp"

namespace check {

// One tensor.
struct Map {
    std::size_t channels;
    std::size_t height;
    std::size_t width;
    std::vector<double> values;  // (channels, height, width)

    Map(std::size_t c, std::size_t h, std::size_t w)
        : channels(c), height(h), width(w), values(c * h * w, 0.0) {}
    [[nodiscard]] double* row(std::size_t c, std::size_t y) { return &values[(c * height + y) * width]; }
    [[nodiscard]] const double* row(std::size_t c, std::size_t y) const {
        return &values[(c * height + y) * width];
    }
};

class PlainNetwork {
  public:
    explicit PlainNetwork(const RandomNetwork& network, const retinaface::NetworkOptions& options)
        : options_(options) {
        for (const retinaface::NamedTensor& tensor : network.tensors) tensors_[tensor.name] = &tensor;
    }

    // Class scores, box deltas and landmark deltas of each level, one row for each anchor.
    [[nodiscard]] std::vector<std::vector<double>> run(const retinaface::ImageView& image) const {
        Map x(3, image.size.height, image.size.width);
        for (std::size_t y = 0; y < x.height; ++y) {
            const std::uint8_t* const row = image.pixels + static_cast<std::ptrdiff_t>(y) * image.row_stride;
            for (std::size_t i = 0; i < x.width; ++i) {
                for (std::size_t c = 0; c < 3; ++c) {
                    const std::size_t byte = image.order == retinaface::ChannelOrder::rgb ? 2 - c : c;
                    x.row(c, y)[i] = double{static_cast<double>(row[3 * i + byte])} -
                                     static_cast<double>(options_.mean_bgr[c]);
                }
            }
        }
        const double slope = static_cast<double>(options_.backbone_slope);
        x = rectified(convolution(x, "backbone.stem.conv", 2), slope);
        std::vector<Map> taps;
        const std::size_t strides[13] = {1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1};
        for (std::size_t i = 0; i < 13; ++i) {
            const std::string block = "backbone.blocks." + std::to_string(i);
            x = rectified(convolution(x, block + ".depthwise.conv", strides[i]), slope);
            x = rectified(convolution(x, block + ".pointwise.conv", 1), slope);
            if (i == 4 || i == 10 || i == 12) taps.push_back(x);
        }
        const double neck = static_cast<double>(options_.neck_slope);
        std::vector<Map> pyramid;
        for (std::size_t k = 0; k < 3; ++k) {
            const std::string name = "fpn.lateral." + std::to_string(k) + ".conv";
            pyramid.push_back(rectified(convolution(taps[k], name, 1), neck));
        }
        for (const std::size_t k : {1U, 0U}) {
            Map& fine = pyramid[k];
            for (std::size_t c = 0; c < fine.channels; ++c) {
                for (std::size_t y = 0; y < fine.height; ++y) {
                    for (std::size_t i = 0; i < fine.width; ++i) {
                        fine.row(c, y)[i] += pyramid[k + 1].row(c, y / 2)[i / 2];
                    }
                }
            }
            fine = rectified(convolution(fine, "fpn.merge." + std::to_string(k) + ".conv", 1), neck);
        }
        std::vector<std::vector<double>> outputs;
        for (std::size_t k = 0; k < 3; ++k) {
            const std::string name = "context." + std::to_string(k) + ".";
            const auto layer = [&](const Map& in, const std::string& conv) {
                return convolution(in, name + conv + ".conv", 1);
            };
            const Map shared = rectified(layer(pyramid[k], "conv5x5_1"), neck);
            Map joined = layer(pyramid[k], "conv3x3");
            append(joined, layer(shared, "conv5x5_2"));
            append(joined, layer(rectified(layer(shared, "conv7x7_2"), neck), "conv7x7_3"));
            joined = rectified(std::move(joined), 0.0);
            for (const char* const head : {"class_head.", "box_head.", "landmark_head."}) {
                const Map out = convolution(joined, head + std::to_string(k), 1);
                std::vector<double> rows;
                for (std::size_t y = 0; y < out.height; ++y) {
                    for (std::size_t i = 0; i < out.width; ++i) {
                        for (std::size_t c = 0; c < out.channels; ++c) rows.push_back(out.row(c, y)[i]);
                    }
                }
                outputs.push_back(std::move(rows));
            }
        }
        return outputs;
    }

  private:
    // Padded with zeros by half of the kernel; each channel by itself where the weights have one input.
    [[nodiscard]] Map convolution(const Map& in, const std::string& name, std::size_t stride) const {
        const retinaface::NamedTensor& weight = *tensors_.at(name + ".weight");
        const retinaface::NamedTensor& bias = *tensors_.at(name + ".bias");
        const std::size_t side = weight.shape[2];
        const bool depthwise = weight.shape[1] == 1 && in.channels > 1;
        Map out(weight.shape[0], (in.height + stride - 1) / stride, (in.width + stride - 1) / stride);
        for (std::size_t o = 0; o < out.channels; ++o) {
            for (std::size_t y = 0; y < out.height; ++y) {
                double* const to = out.row(o, y);
                std::fill_n(to, out.width, static_cast<double>(bias.data[o]));
                for (std::size_t n = 0; n < weight.shape[1]; ++n) {
                    const std::size_t channel = depthwise ? o : n;
                    const float* const kernel = weight.data + (o * weight.shape[1] + n) * side * side;
                    for (std::size_t i = 0; i < side; ++i) {
                        const std::size_t from_y = stride * y + i;  // too many by side / 2
                        if (from_y < side / 2 || from_y - side / 2 >= in.height) continue;
                        const double* const from = in.row(channel, from_y - side / 2);
                        for (std::size_t j = 0; j < side; ++j) {
                            const double w = static_cast<double>(kernel[i * side + j]);
                            const std::size_t skipped = j < side / 2 ? 1 : 0;
                            for (std::size_t x = skipped; x < out.width; ++x) {
                                const std::size_t from_x = stride * x + j - side / 2;
                                if (from_x >= in.width) break;
                                to[x] += w * from[from_x];
                            }
                        }
                    }
                }
            }
        }
        return out;
    }

    static Map rectified(Map map, double slope) {
        for (double& value : map.values) value = value > 0 ? value : slope * value;
        return map;
    }

    static void append(Map& map, const Map& more) {
        map.channels += more.channels;
        map.values.insert(map.values.end(), more.values.begin(), more.values.end());
    }

    retinaface::NetworkOptions options_;
    std::map<std::string, const retinaface::NamedTensor*> tensors_;
};

// A picture with edges and noise, packed.
struct Picture {
    Picture(retinaface::ImageSize image_size, std::uint64_t seed)
        : size(image_size), bytes(3 * image_size.height * image_size.width) {
        Random random(seed);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            const std::size_t x = i / 3 % size.width;
            const std::size_t y = i / 3 / size.width;
            const unsigned field = (x / 11 + y / 7) % 3 == 0 ? 190U : 20U;
            bytes[i] = static_cast<std::uint8_t>(field + random() % 64U);
        }
    }

    [[nodiscard]] retinaface::ImageView view(
        retinaface::ChannelOrder order = retinaface::ChannelOrder::bgr) const {
        return {bytes.data(), size, static_cast<std::ptrdiff_t>(3 * size.width), order};
    }

    retinaface::ImageSize size;
    std::vector<std::uint8_t> bytes;
};

// The largest difference as a share of the range of all outputs of its kind.
inline double error_of_range(const std::vector<std::vector<double>>& expected,
                             const std::vector<std::vector<float>>& found) {
    double worst = 0.0;
    for (std::size_t kind = 0; kind < 3; ++kind) {
        double low = std::numeric_limits<double>::infinity();
        double high = -low;
        double most = 0.0;
        for (std::size_t i = kind; i < 9; i += 3) {
            CHECK(expected[i].size() == found[i].size());
            for (std::size_t n = 0; n < expected[i].size(); ++n) {
                low = std::min(low, expected[i][n]);
                high = std::max(high, expected[i][n]);
                const double difference = std::abs(expected[i][n] - static_cast<double>(found[i][n]));
                // NaN is no number to compare with, and not small.
                most = difference >= most || std::isnan(difference) ? difference : most;
                if (std::isnan(most)) return most;
            }
        }
        worst = std::max(worst, most / (high - low));
    }
    return worst;
}

}  // namespace check
