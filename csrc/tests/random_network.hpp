// Networks with random weights under the canonical names, for tests and fuzz targets.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "retinaface/engine.hpp"

namespace check {

// Channels of a MobileNetV1 RetinaFace.
struct NetworkShape {
    std::size_t stem;
    std::vector<std::size_t> blocks;  // 13
    std::size_t features;
    std::vector<std::size_t> anchors;  // of a cell, for each of three levels
};

// MobileNetV1 of `eighths` / 8 of its full width.
inline NetworkShape mobilenet(std::size_t eighths, std::size_t features) {
    NetworkShape shape{4 * eighths, {}, features, {2, 2, 2}};
    constexpr std::size_t kChannels[] = {8, 16, 16, 32, 32, 64, 64, 64, 64, 64, 64, 128, 128};
    for (const std::size_t channels : kChannels) {
        shape.blocks.push_back(channels * eighths);
    }
    return shape;
}

inline std::size_t elements(const std::vector<std::size_t>& shape) {
    std::size_t count = 1;
    for (const std::size_t side : shape) count *= side;
    return count;
}

// Calls visit(name, shape, width) for each tensor of a network in turn, a weight before its bias. Numbers
// within [-width, width] keep the size of what a rectifier lets through; the stem takes pixels to about 1.
template <typename Visit>
void for_each_tensor(const NetworkShape& shape, const Visit& visit) {
    const auto layer = [&](const std::string& name, const std::vector<std::size_t>& weight,
                           float scale = 1.0F) {
        const std::size_t inputs = elements(weight) / weight[0];
        visit(name + ".weight", weight, scale * std::sqrt(6.0F / static_cast<float>(inputs)));
        visit(name + ".bias", std::vector<std::size_t>{weight[0]}, 0.1F);
    };
    layer("backbone.stem.conv", {shape.stem, 3, 3, 3}, 1.0F / 64.0F);
    std::size_t channels = shape.stem;
    for (std::size_t i = 0; i < shape.blocks.size(); ++i) {
        const std::string name = "backbone.blocks." + std::to_string(i);
        layer(name + ".depthwise.conv", {channels, 1, 3, 3});
        layer(name + ".pointwise.conv", {shape.blocks[i], channels, 1, 1});
        channels = shape.blocks[i];
    }
    const std::size_t features = shape.features;
    const std::size_t quarter = features / 4;
    const std::size_t taps[3] = {4, 10, 12};
    for (std::size_t k = 0; k < 3; ++k) {
        const std::string level = std::to_string(k);
        layer("fpn.lateral." + level + ".conv", {features, shape.blocks[taps[k]], 1, 1});
        if (k < 2) layer("fpn.merge." + level + ".conv", {features, features, 3, 3});
        const std::string context = "context." + level;
        layer(context + ".conv3x3.conv", {features / 2, features, 3, 3});
        layer(context + ".conv5x5_1.conv", {quarter, features, 3, 3});
        layer(context + ".conv5x5_2.conv", {quarter, quarter, 3, 3});
        layer(context + ".conv7x7_2.conv", {quarter, quarter, 3, 3});
        layer(context + ".conv7x7_3.conv", {quarter, quarter, 3, 3});
        layer("class_head." + level, {2 * shape.anchors[k], features, 1, 1});
        layer("box_head." + level, {4 * shape.anchors[k], features, 1, 1});
        layer("landmark_head." + level, {10 * shape.anchors[k], features, 1, 1});
    }
}

// Tensors with random numbers, and the memory that they refer to.
class RandomNetwork {
  public:
    // `face_bias` moves the face logits against those of the background.
    explicit RandomNetwork(const NetworkShape& shape, std::uint64_t seed, float face_bias = 0.0F) {
        Random random(seed);
        for_each_tensor(shape,
                        [&](const std::string& name, const std::vector<std::size_t>& sides, float width) {
                            memory_.emplace_back(elements(sides));
                            std::vector<float>& values = memory_.back();
                            for (float& value : values) value = uniform(random, -width, width);
                            if (name.rfind("class_head.", 0) == 0 && sides.size() == 1) {
                                for (std::size_t i = 1; i < values.size(); i += 2) values[i] += face_bias;
                            }
                            tensors.push_back({name, sides, values.data()});
                        });
    }
    RandomNetwork(const RandomNetwork&) = delete;
    RandomNetwork& operator=(const RandomNetwork&) = delete;

    // To be changed as one likes, as long as `data` has room for `shape`.
    std::vector<retinaface::NamedTensor> tensors;

    // The numbers of tensor i.
    [[nodiscard]] std::vector<float>& values(std::size_t i) { return memory_[i]; }

    [[nodiscard]] std::size_t index_of(const std::string& name) const {
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            if (tensors[i].name == name) return i;
        }
        throw std::logic_error("no tensor " + name);
    }

  private:
    std::deque<std::vector<float>> memory_;
};

// The anchors of the published networks, `count` for each cell.
inline retinaface::AnchorPyramid pyramid(const std::vector<std::size_t>& anchors = {2, 2, 2}) {
    std::vector<retinaface::AnchorLevel> levels;
    float size = 16.0F;
    for (std::size_t k = 0; k < anchors.size(); ++k) {
        levels.push_back({std::size_t{8} << k, {}});
        for (std::size_t i = 0; i < anchors[k]; ++i) {
            levels.back().sizes.push_back(size);
            size *= 2.0F;
        }
    }
    return retinaface::AnchorPyramid(std::move(levels));
}

}  // namespace check
