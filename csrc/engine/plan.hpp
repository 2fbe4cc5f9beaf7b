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
    chain,         // consecutive layers of the backbone, row by row
    lateral,       // pointwise convolution, plus the upsampled coarser level
    winograd,      // 3x3 convolution
    class_scores,  // class heads of a level
    deltas,        // box and landmark heads of a level, at every cell
};

// Rows that a layer of a chain reads: of a map, or the last rows of the layer before it, in the thread's
// scratch.
struct RowSource {
    bool in_arena;
    std::size_t offset;  // floats
    std::size_t rows;    // row y lies in place y % rows
    std::size_t height;
    std::size_t width;
    std::size_t blocks;
    std::size_t block_stride;
    std::size_t row_stride;
};

// Layers of the backbone that run together, so that what stands between them never leaves the cache and is
// never whole in memory: the stem, if the chain begins at the image, and the blocks from first_block to
// last_block.
struct Chain {
    bool from_image;
    std::size_t first_block;
    std::size_t last_block;
    std::vector<RowSource>
        sources;          // of the layers, in order; those of a chain from an image begin with the image
    std::size_t between;  // place in the scratch for what stands between the two convolutions of a block
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
    std::size_t in;              // map, kNone: the image
    std::size_t out;             // map, kNone: out_blocks, or raw outputs
    std::size_t units;           // rows of the output, or groups of tiles
    double cost;                 // multiplications, to share out
    std::size_t level = 0;       // of the neck
    std::size_t in_block = 0;    // first block of `in` that is read
    std::size_t addend = kNone;  // map
    const PackedWinograd* winograd = nullptr;
    std::vector<OutputBlock> out_blocks = {};  // of a Winograd step
    Chain chain = {};
    std::size_t phase = 0;
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
    std::vector<std::size_t> task_counts;  // of the phases
    std::size_t features[kLevels];         // maps that the heads read
    std::size_t scores_offset[kLevels];    // class scores in the arena, (cells, 2 * anchors)
    std::size_t arena_floats;
    std::size_t scratch_floats;  // of each thread
    std::size_t zeros_floats;    // a row of zeros for every map, with its padding

  private:
    std::size_t add_map(std::size_t height, std::size_t width, std::size_t blocks);
    void add_step(Step step);
    std::size_t add_chain(const PackedModel& model, std::size_t in, std::size_t first_block,
                          std::size_t last_block);
    void add_winograd(std::size_t level, const PackedWinograd& layer, std::size_t in, std::size_t in_block,
                      std::vector<OutputBlock> outputs);
    void place_maps();
    void cut_tasks();
};

// Columns of a row that a separable layer computes at a time, so that what stands between its two
// convolutions stays in the first level of the cache.
[[nodiscard]] std::size_t separable_columns(std::size_t channels, std::size_t width) noexcept;

// Rows that are kept of a layer within a chain: three that the next layer reads, and one that it will.
inline constexpr std::size_t kRingRows = 4;
inline constexpr std::size_t kMostChainSources = 16;

// Winograd: between the positions of the scratch, against sets of the cache that would collide.
inline constexpr std::size_t kPositionPadding = 16;

}  // namespace retinaface::engine
