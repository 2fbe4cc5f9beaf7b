// What is to be done for an image of a given size: feature maps with their place in memory, steps that
// compute one from another, and the tasks into which the steps are cut. A step runs in the first phase after
// those that it reads from, so that levels of the pyramid that do not need each other share phases.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/packing.hpp"
#include "retinaface/anchors.hpp"

namespace retinaface::engine {

// A feature map, in the layout of kernels.hpp, rows one after the other.
struct FeatureMap {
    std::size_t height;
    std::size_t width;
    std::size_t blocks;        // of 8 channels
    std::size_t block_stride;  // floats
    std::size_t row_stride;    // floats
    std::size_t offset;        // floats from the beginning of the arena
    // Phases: of the first and of the last step that writes it, and of the last one that writes or reads it.
    std::size_t first_phase;
    std::size_t written_phase;
    std::size_t last_phase;

    [[nodiscard]] std::size_t floats() const noexcept { return height * row_stride; }
};

enum class StepKind {
    front,         // pixels to the first feature map that is kept: the stem and a few blocks, row by row
    separable,     // depthwise and pointwise convolution
    lateral,       // pointwise convolution, plus the upsampled coarser level
    winograd,      // 3x3 convolution
    class_scores,  // class heads of a level
    deltas,        // box and landmark heads of a level, at every cell
};

// Where a block of 8 output channels goes.
struct OutputBlock {
    std::size_t map;
    std::size_t block;
    float slope;
};

inline constexpr std::size_t kNone = static_cast<std::size_t>(-1);

struct Step {
    StepKind kind;
    std::size_t layer;     // of the backbone: index of the (last) block; of the neck: level
    std::size_t in;        // map, kNone: the image
    std::size_t in_block;  // first block of it
    std::size_t out;       // map, kNone: raw outputs
    std::size_t addend;    // map, or kNone
    const PackedWinograd* winograd;
    std::vector<OutputBlock> out_blocks;  // of a Winograd step
    std::size_t units;                    // rows of the output, or groups of tiles
    std::size_t phase;
    double cost;  // multiplications, to share out
};

struct Task {
    std::size_t step;
    std::size_t begin;  // units
    std::size_t end;
};

class Plan {
  public:
    // Cuts into tasks for `threads` threads. With `all_deltas`, box and landmark heads are computed at every
    // cell.
    Plan(const PackedModel& model, ImageSize image, std::size_t threads, bool all_deltas);

    [[nodiscard]] bool is_for(ImageSize image, std::size_t threads, bool all_deltas) const noexcept;

    ImageSize image;
    std::size_t threads;
    bool all_deltas;
    std::vector<FeatureMap> maps;
    std::vector<Step> steps;
    std::vector<std::vector<Task>> phases;
    std::size_t features[kLevels];       // maps that the heads read
    std::size_t scores_offset[kLevels];  // class scores in the arena, (cells, 2 * anchors)
    std::size_t arena_floats;
    std::size_t scratch_floats;  // of each thread
    std::size_t zeros_floats;    // a row of zeros for every map, with its padding

    // Rings of the rows of the front's layers in the scratch: the image, the stem, the blocks but the last.
    struct Ring {
        std::size_t offset;
        std::size_t height;
        std::size_t width;
        std::size_t blocks;
        std::size_t block_stride;
        std::size_t row_stride;
    };
    std::vector<Ring> rings;
    std::size_t front_scratch;  // offset of what a separable layer needs beside the rings

  private:
    std::size_t add_map(std::size_t height, std::size_t width, std::size_t blocks);
    void add_step(Step step);
    void add_winograd(std::size_t level, const PackedWinograd& layer, std::size_t in, std::size_t in_block,
                      std::vector<OutputBlock> outputs);
    void place_maps();
    void cut_tasks();
};

// Columns of a row that a separable layer computes at a time, so that what stands between its two
// convolutions stays in the first level of the cache.
[[nodiscard]] std::size_t separable_columns(std::size_t channels, std::size_t width) noexcept;

inline constexpr std::size_t kRingRows = 4;
// Blocks that run with the stem: up to the one that feeds the finest level of the pyramid.
inline constexpr std::size_t kFrontBlocks = 5;

// Winograd: between the positions of the scratch, against sets of the cache that would collide.
inline constexpr std::size_t kPositionPadding = 16;

}  // namespace retinaface::engine
