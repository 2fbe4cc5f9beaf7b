// Weights in the order in which the kernels read them.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/aligned.hpp"
#include "engine/model.hpp"

namespace retinaface::engine {

struct PackedStem {
    std::size_t blocks;
    AlignedFloats weights;  // (blocks, 27, 8)
    AlignedFloats bias;
};

struct PackedDepthwise {
    std::size_t stride;
    std::size_t blocks;
    AlignedFloats weights;  // (blocks, 9, 8)
    AlignedFloats bias;
};

struct PackedPointwise {
    std::size_t in_channels;
    std::size_t panels;
    AlignedFloats weights;  // (panels, in_channels, 16), zeros where there is no such output
    AlignedFloats bias;     // (panels, 16)
};

struct PackedWinograd {
    std::size_t in_channels;
    std::size_t panels;
    AlignedFloats weights;  // (panels, 36, in_channels, 16)
    AlignedFloats bias;     // (panels, 16)
};

struct PackedClassHead {
    std::size_t outputs;
    AlignedFloats weights;  // (outputs, channels)
    AlignedFloats bias;
};

struct PackedBlock {
    PackedDepthwise depthwise;
    PackedPointwise pointwise;
};

struct PackedContext {
    PackedWinograd first;   // conv3x3 and conv5x5_1
    PackedWinograd second;  // conv5x5_2 and conv7x7_2
    PackedWinograd third;   // conv7x7_3
};

struct PackedHeads {
    std::size_t anchors;
    PackedClassHead classes;
    PackedPointwise deltas;  // the boxes of all anchors of a cell, then their landmarks
};

struct PackedModel {
    float backbone_slope;
    float neck_slope;
    std::size_t features;  // channels of the pyramid
    PackedStem stem;
    std::vector<PackedBlock> blocks;
    std::size_t taps[kLevels];
    std::vector<PackedPointwise> lateral;
    std::vector<PackedWinograd> merge;
    std::vector<PackedContext> context;
    std::vector<PackedHeads> heads;
};

[[nodiscard]] PackedModel pack(const Model& model);

}  // namespace retinaface::engine
