// The network as data: which convolutions it has and where their numbers lie. Nothing here depends on the
// size of an image or on an instruction set.
#pragma once

#include <cstddef>
#include <vector>

#include "retinaface/engine.hpp"

namespace retinaface::engine {

inline constexpr std::size_t kLevels = 3;

// A convolution with batch norm folded in: weight (out_channels, in_channels / groups, side, side),
// row-major.
struct Convolution {
    std::size_t out_channels = 0;
    std::size_t in_channels = 0;
    const float* weight = nullptr;
    const float* bias = nullptr;
};

// MobileNetV1 (Howard et al. 2017, arXiv 1704.04861).
struct SeparableBlock {
    std::size_t stride = 1;
    Convolution depthwise;  // in_channels is 1
    Convolution pointwise;
};

// SSH (Najibi et al. 2017, arXiv 1708.03979), the first convolution of the second and third branch shared.
struct Context {
    Convolution conv3x3;
    Convolution conv5x5_1;
    Convolution conv5x5_2;
    Convolution conv7x7_2;
    Convolution conv7x7_3;
};

struct Heads {
    Convolution classes;
    Convolution boxes;
    Convolution landmarks;
};

struct Model {
    float backbone_slope = 0.0F;
    float neck_slope = 0.0F;
    Convolution stem;
    std::vector<SeparableBlock> blocks;
    std::size_t taps[kLevels] = {};  // index of the block whose output feeds a level of the pyramid
    Convolution lateral[kLevels];
    Convolution merge[kLevels - 1];  // of the finer levels
    Context context[kLevels];
    Heads heads[kLevels];
    std::size_t anchors_per_cell[kLevels] = {};
};

// Finds the network in named tensors. The model refers to the tensors' memory. Throws std::invalid_argument
// that names the tensor if they are not a MobileNetV1 RetinaFace of a form that this engine runs.
[[nodiscard]] Model read_model(const std::vector<NamedTensor>& tensors, const NetworkOptions& options);

}  // namespace retinaface::engine
