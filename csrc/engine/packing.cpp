#include "engine/packing.hpp"

#include <algorithm>
#include <initializer_list>

#include "engine/kernels/kernels.hpp"

namespace retinaface::engine {

namespace {

using Convolutions = std::initializer_list<const Convolution*>;

std::size_t outputs_of(Convolutions convolutions) {
    std::size_t outputs = 0;
    for (const Convolution* convolution : convolutions) outputs += convolution->out_channels;
    return outputs;
}

AlignedFloats zeros(std::size_t count) {
    AlignedFloats floats(count);
    std::fill_n(floats.data(), count, 0.0F);
    return floats;
}

AlignedFloats copy(const float* from, std::size_t count) {
    AlignedFloats floats(count);
    std::copy_n(from, count, floats.data());
    return floats;
}

// The biases of convolutions that are computed together, filled up to whole panels.
AlignedFloats pack_bias(Convolutions convolutions, std::size_t panels) {
    AlignedFloats bias = zeros(panels * kPanel);
    float* to = bias.data();
    for (const Convolution* convolution : convolutions) {
        to = std::copy_n(convolution->bias, convolution->out_channels, to);
    }
    return bias;
}

PackedStem pack_stem(const Convolution& stem) {
    constexpr std::size_t kTaps = 27;
    AlignedFloats weights(stem.out_channels * kTaps);
    for (std::size_t out = 0; out < stem.out_channels; ++out) {
        for (std::size_t channel = 0; channel < 3; ++channel) {
            for (std::size_t place = 0; place < 9; ++place) {
                weights.data()[(out / kBlock * kTaps + 3 * place + channel) * kBlock + out % kBlock] =
                    stem.weight[(out * 3 + channel) * 9 + place];
            }
        }
    }
    return {stem.out_channels / kBlock, std::move(weights), copy(stem.bias, stem.out_channels)};
}

PackedDepthwise pack_depthwise(const Convolution& depthwise, std::size_t stride) {
    AlignedFloats weights(depthwise.out_channels * 9);
    for (std::size_t channel = 0; channel < depthwise.out_channels; ++channel) {
        for (std::size_t place = 0; place < 9; ++place) {
            weights.data()[(channel / kBlock * 9 + place) * kBlock + channel % kBlock] =
                depthwise.weight[channel * 9 + place];
        }
    }
    return {stride, depthwise.out_channels / kBlock, std::move(weights),
            copy(depthwise.bias, depthwise.out_channels)};
}

PackedPointwise pack_pointwise(Convolutions convolutions) {
    const std::size_t in_channels = (*convolutions.begin())->in_channels;
    const std::size_t panels = (outputs_of(convolutions) + kPanel - 1) / kPanel;
    AlignedFloats weights = zeros(panels * in_channels * kPanel);
    std::size_t n = 0;
    for (const Convolution* convolution : convolutions) {
        for (std::size_t out = 0; out < convolution->out_channels; ++out, ++n) {
            for (std::size_t k = 0; k < in_channels; ++k) {
                // NOLINTNEXTLINE(clang-analyzer-security.ArrayBound): there are whole panels)
                weights.data()[(n / kPanel * in_channels + k) * kPanel + n % kPanel] =
                    convolution->weight[out * in_channels + k];
            }
        }
    }
    return {in_channels, panels, std::move(weights), pack_bias(convolutions, panels)};
}

// Rows of the matrix G of F(4x4, 3x3) for the points 0, 1, -1, 2, -2 and infinity.
constexpr double kWeightTransform[kPatch][3] = {
    {1.0 / 4, 0.0, 0.0},           {-1.0 / 6, -1.0 / 6, -1.0 / 6}, {-1.0 / 6, 1.0 / 6, -1.0 / 6},
    {1.0 / 24, 1.0 / 12, 1.0 / 6}, {1.0 / 24, -1.0 / 12, 1.0 / 6}, {0.0, 0.0, 1.0}};

// G g G^T of one kernel (3, 3), in double: rounded once.
void transform_weight(const float* kernel, double* positions) {
    double half[kPatch][3] = {};
    for (std::size_t i = 0; i < kPatch; ++i) {
        for (std::size_t column = 0; column < 3; ++column) {
            for (std::size_t row = 0; row < 3; ++row) {
                half[i][column] += kWeightTransform[i][row] * static_cast<double>(kernel[3 * row + column]);
            }
        }
    }
    for (std::size_t i = 0; i < kPatch; ++i) {
        for (std::size_t j = 0; j < kPatch; ++j) {
            double sum = 0.0;
            for (std::size_t column = 0; column < 3; ++column) {
                sum += half[i][column] * kWeightTransform[j][column];
            }
            positions[kPatch * i + j] = sum;
        }
    }
}

PackedWinograd pack_winograd(Convolutions convolutions) {
    const std::size_t in_channels = (*convolutions.begin())->in_channels;
    const std::size_t panels = outputs_of(convolutions) / kPanel;
    AlignedFloats weights(panels * kPositions * in_channels * kPanel);
    std::size_t n = 0;
    for (const Convolution* convolution : convolutions) {
        for (std::size_t out = 0; out < convolution->out_channels; ++out, ++n) {
            float* const panel = weights.data() + n / kPanel * kPositions * in_channels * kPanel;
            for (std::size_t k = 0; k < in_channels; ++k) {
                double positions[kPositions];
                transform_weight(convolution->weight + (out * in_channels + k) * 9, positions);
                for (std::size_t p = 0; p < kPositions; ++p) {
                    // NOLINTNEXTLINE(clang-analyzer-security.ArrayBound): there are whole panels)
                    panel[(p * in_channels + k) * kPanel + n % kPanel] = static_cast<float>(positions[p]);
                }
            }
        }
    }
    return {in_channels, panels, std::move(weights), pack_bias(convolutions, panels)};
}

}  // namespace

PackedModel pack(const Model& model) {
    PackedModel packed{};
    packed.backbone_slope = model.backbone_slope;
    packed.neck_slope = model.neck_slope;
    packed.features = model.lateral[0].out_channels;
    packed.stem = pack_stem(model.stem);
    for (const SeparableBlock& block : model.blocks) {
        packed.blocks.push_back(
            {pack_depthwise(block.depthwise, block.stride), pack_pointwise({&block.pointwise})});
    }
    for (std::size_t k = 0; k < kLevels; ++k) {
        packed.taps[k] = model.taps[k];
        packed.lateral.push_back(pack_pointwise({&model.lateral[k]}));
        if (k + 1 < kLevels) packed.merge.push_back(pack_winograd({&model.merge[k]}));
        const Context& context = model.context[k];
        packed.context.push_back({pack_winograd({&context.conv3x3, &context.conv5x5_1}),
                                  pack_winograd({&context.conv5x5_2, &context.conv7x7_2}),
                                  pack_winograd({&context.conv7x7_3})});
        const Heads& heads = model.heads[k];
        packed.heads.push_back(
            {model.anchors_per_cell[k],
             {heads.classes.out_channels,
              copy(heads.classes.weight, heads.classes.out_channels * heads.classes.in_channels),
              copy(heads.classes.bias, heads.classes.out_channels)},
             pack_pointwise({&heads.boxes, &heads.landmarks})});
    }
    return packed;
}

}  // namespace retinaface::engine
