#include "engine/model.hpp"

#include <cmath>
#include <map>
#include <stdexcept>
#include <utility>

#include "engine/kernels/kernels.hpp"

namespace retinaface::engine {

namespace {

// Strides of the blocks and the last block of each level: table 1 of the MobileNetV1 paper.
constexpr std::size_t kStrides[] = {1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1};
constexpr std::size_t kTaps[kLevels] = {4, 10, 12};
// Channels beyond which a row of a picture could overflow what is counted here; far above any MobileNet.
constexpr std::size_t kMostChannels = 1U << 14U;

std::string words(const std::vector<std::size_t>& shape) {
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); ++i) {
        text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    }
    return text + (shape.size() == 1 ? ",)" : ")");
}

class Tensors {
  public:
    explicit Tensors(const std::vector<NamedTensor>& tensors) {
        for (const NamedTensor& tensor : tensors) {
            if (!by_name_.emplace(tensor.name, &tensor).second) {
                throw std::invalid_argument("tensors: there are two of the name '" + tensor.name + "'");
            }
        }
    }

    // The convolution `name`, whose weight is (any, in_channels, side, side).
    Convolution take(const std::string& name, std::size_t in_channels, std::size_t side) {
        const NamedTensor& weight = take(name + ".weight");
        const NamedTensor& bias = take(name + ".bias");
        const bool fits = weight.shape.size() == 4 && weight.shape[0] >= 1 &&
                          weight.shape[0] <= kMostChannels && weight.shape[1] == in_channels &&
                          weight.shape[2] == side && weight.shape[3] == side;
        if (!fits) {
            throw std::invalid_argument("tensors['" + weight.name + "']: expected shape (N, " +
                                        std::to_string(in_channels) + ", " + std::to_string(side) + ", " +
                                        std::to_string(side) + "), got " + words(weight.shape));
        }
        if (bias.shape != std::vector<std::size_t>{weight.shape[0]}) {
            throw std::invalid_argument("tensors['" + bias.name + "']: expected shape (" +
                                        std::to_string(weight.shape[0]) + ",), got " + words(bias.shape));
        }
        return {weight.shape[0], in_channels, weight.data, bias.data};
    }

    // The same with a number of output channels that is given.
    Convolution take(const std::string& name, std::size_t out_channels, std::size_t in_channels,
                     std::size_t side) {
        const Convolution convolution = take(name, in_channels, side);
        if (convolution.out_channels != out_channels) {
            throw std::invalid_argument("tensors['" + name + ".weight']: expected " +
                                        std::to_string(out_channels) + " output channels, got " +
                                        std::to_string(convolution.out_channels));
        }
        return convolution;
    }

    void expect_empty() const {
        if (by_name_.empty()) return;
        throw std::invalid_argument("tensors: '" + by_name_.begin()->first +
                                    "' belongs to no network that this engine runs");
    }

  private:
    const NamedTensor& take(const std::string& name) {
        const auto found = by_name_.find(name);
        if (found == by_name_.end()) {
            throw std::invalid_argument("tensors: '" + name +
                                        "' is missing; this engine runs MobileNetV1 with "
                                        "three levels and a shared first convolution of the context modules");
        }
        const NamedTensor& tensor = *found->second;
        by_name_.erase(found);
        return tensor;
    }

    std::map<std::string, const NamedTensor*> by_name_;
};

void expect_multiple(const std::string& name, std::size_t channels, std::size_t of) {
    if (channels % of == 0) return;
    throw std::invalid_argument("tensors['" + name + ".weight']: expected a multiple of " +
                                std::to_string(of) + " output channels, got " + std::to_string(channels));
}

void expect_slope(const char* name, float slope) {
    if (slope >= 0.0F && slope <= 1.0F) return;
    throw std::invalid_argument(std::string(name) + ": expected a number within [0, 1], got " +
                                std::to_string(slope));
}

}  // namespace

Model read_model(const std::vector<NamedTensor>& tensors, const NetworkOptions& options) {
    expect_slope("backbone_slope", options.backbone_slope);
    expect_slope("neck_slope", options.neck_slope);
    for (const float mean : options.mean_bgr) {
        if (!std::isfinite(mean)) {
            throw std::invalid_argument("mean_bgr: expected finite numbers, got " + std::to_string(mean));
        }
    }
    const std::vector<AnchorLevel>& levels = options.anchors.levels();
    if (levels.size() != kLevels || levels[0].stride != 8 || levels[1].stride != 16 ||
        levels[2].stride != 32) {
        std::string strides;
        for (const AnchorLevel& level : levels) {
            strides += (strides.empty() ? "" : ", ") + std::to_string(level.stride);
        }
        throw std::invalid_argument("anchors: expected three levels of strides 8, 16 and 32, got " + strides);
    }

    Tensors source(tensors);
    Model model;
    model.backbone_slope = options.backbone_slope;
    model.neck_slope = options.neck_slope;
    model.stem = source.take("backbone.stem.conv", 3, 3);
    expect_multiple("backbone.stem.conv", model.stem.out_channels, kBlock);
    std::size_t channels = model.stem.out_channels;
    for (std::size_t i = 0; i < sizeof kStrides / sizeof *kStrides; ++i) {
        const std::string name = "backbone.blocks." + std::to_string(i);
        SeparableBlock block;
        block.stride = kStrides[i];
        block.depthwise = source.take(name + ".depthwise.conv", channels, 1, 3);
        block.pointwise = source.take(name + ".pointwise.conv", channels, 1);
        channels = block.pointwise.out_channels;
        expect_multiple(name + ".pointwise.conv", channels, kPanel);
        model.blocks.push_back(block);
    }

    const std::size_t features = [&]() {
        const Convolution first =
            source.take("fpn.lateral.0.conv", model.blocks[kTaps[0]].pointwise.out_channels, 1);
        expect_multiple("fpn.lateral.0.conv", first.out_channels, 4 * kPanel);
        model.lateral[0] = first;
        return first.out_channels;
    }();
    for (std::size_t k = 0; k < kLevels; ++k) {
        model.taps[k] = kTaps[k];
        if (k > 0) {
            model.lateral[k] = source.take("fpn.lateral." + std::to_string(k) + ".conv", features,
                                           model.blocks[kTaps[k]].pointwise.out_channels, 1);
            model.merge[k - 1] =
                source.take("fpn.merge." + std::to_string(k - 1) + ".conv", features, features, 3);
        }
        const std::string name = "context." + std::to_string(k);
        const std::size_t quarter = features / 4;
        model.context[k] = {source.take(name + ".conv3x3.conv", features / 2, features, 3),
                            source.take(name + ".conv5x5_1.conv", quarter, features, 3),
                            source.take(name + ".conv5x5_2.conv", quarter, quarter, 3),
                            source.take(name + ".conv7x7_2.conv", quarter, quarter, 3),
                            source.take(name + ".conv7x7_3.conv", quarter, quarter, 3)};
        const std::size_t anchors = levels[k].sizes.size();
        const std::string level = std::to_string(k);
        model.heads[k] = {source.take("class_head." + level, 2 * anchors, features, 1),
                          source.take("box_head." + level, 4 * anchors, features, 1),
                          source.take("landmark_head." + level, 10 * anchors, features, 1)};
        model.anchors_per_cell[k] = anchors;
    }
    source.expect_empty();
    return model;
}

}  // namespace retinaface::engine
