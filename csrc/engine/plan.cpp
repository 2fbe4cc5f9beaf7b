#include "engine/plan.hpp"

#include <algorithm>
#include <numeric>

#include "engine/kernels/kernels.hpp"

namespace retinaface::engine {

namespace {

// What stands between the convolutions of a separable layer, and the transformed tiles of a group.
constexpr std::size_t kSeparableFloats = 6 * 1024;
constexpr std::size_t kGroupFloats = 56 * 1024;
constexpr std::size_t kMostTiles = 24;
constexpr std::size_t kFewestTiles = 6;
// Tasks of a phase for each thread: enough that one that is held up does not hold up all.
constexpr std::size_t kTasksPerThread = 3;
// Rows of the front's output below which a task would mostly compute rows that its neighbours compute too.
constexpr std::size_t kFrontRows = 32;

std::size_t ceil_divide(std::size_t a, std::size_t b) noexcept { return (a + b - 1) / b; }

// A column left of the map and some right of it are there, and rows do not lie a multiple of 4096 bytes
// apart, where they would share a set of the first level of the cache.
std::size_t padded_line(std::size_t width) noexcept {
    const std::size_t line = (1 + width + kRightPadding) * kBlock;
    return line % 1024 < 2 * kBlock || line % 1024 > 1024 - 2 * kBlock ? line + 4 * kBlock : line;
}

std::size_t tiles_of(const FeatureMap& map) noexcept {
    return ceil_divide(map.height, kTile) * ceil_divide(map.width, kTile);
}

std::size_t most_tiles(std::size_t in_channels) noexcept {
    return std::clamp(kGroupFloats / (kPositions * in_channels), kFewestTiles, kMostTiles);
}

std::size_t group_floats(std::size_t in_channels, std::size_t tiles) noexcept {
    return kPositions * (tiles * in_channels + kPositionPadding) +
           kPositions * (tiles * kPanel + kPositionPadding);
}

}  // namespace

std::size_t separable_columns(std::size_t channels, std::size_t width) noexcept {
    const std::size_t most = std::max<std::size_t>(kSeparableFloats / channels, 6);
    return ceil_divide(width, ceil_divide(width, most));
}

bool Plan::is_for(ImageSize size, std::size_t thread_count, bool deltas) const noexcept {
    return image.height == size.height && image.width == size.width && threads == thread_count &&
           all_deltas == deltas;
}

std::size_t Plan::add_map(std::size_t height, std::size_t width, std::size_t blocks) {
    const std::size_t line = padded_line(width);
    maps.push_back({height, width, blocks, line, blocks * line, 0, kNone, 0, 0});
    zeros_floats = std::max(zeros_floats, line);
    return maps.size() - 1;
}

// A step runs in the phase after the last one that writes what it reads. Steps are added in an order in which
// they could run one by one.
void Plan::add_step(Step step) {
    step.phase = 0;
    for (const std::size_t map : {step.in, step.addend}) {
        if (map != kNone) step.phase = std::max(step.phase, maps[map].written_phase + 1);
    }
    for (const std::size_t map : {step.in, step.addend}) {
        if (map != kNone) maps[map].last_phase = std::max(maps[map].last_phase, step.phase);
    }
    const auto write = [&](std::size_t map) {
        FeatureMap& out = maps[map];
        out.first_phase = std::min(out.first_phase, step.phase);
        out.written_phase = std::max(out.written_phase, step.phase);
        out.last_phase = std::max(out.last_phase, step.phase);
    };
    if (step.out != kNone) write(step.out);
    for (const OutputBlock& block : step.out_blocks) write(block.map);
    steps.push_back(std::move(step));
}

void Plan::add_winograd(std::size_t level, const PackedWinograd& layer, std::size_t in, std::size_t in_block,
                        std::vector<OutputBlock> outputs) {
    const std::size_t tiles = tiles_of(maps[in]);
    const std::size_t groups = ceil_divide(tiles, most_tiles(layer.in_channels));
    // Every thread gets the same number of groups, and all groups are of the same size.
    const std::size_t units = std::min(ceil_divide(groups, threads) * threads, tiles);
    scratch_floats = std::max(scratch_floats, group_floats(layer.in_channels, ceil_divide(tiles, units)));
    const double cost = static_cast<double>(tiles * kPositions * layer.in_channels * layer.panels * kPanel);
    add_step(
        {StepKind::winograd, level, in, in_block, kNone, kNone, &layer, std::move(outputs), units, 0, cost});
}

Plan::Plan(const PackedModel& model, ImageSize image_size, std::size_t thread_count, bool deltas)
    : image(image_size),
      threads(thread_count),
      all_deltas(deltas),
      features(),
      scores_offset(),
      arena_floats(0),
      scratch_floats(0),
      zeros_floats(0),
      front_scratch(0) {
    // The front: rings of rows of the image and of each layer, then the map that its last block gives.
    std::size_t height = image.height;
    std::size_t width = image.width;
    const auto add_ring = [&](std::size_t blocks, std::size_t block_stride) {
        const std::size_t offset = rings.empty() ? 0 : front_scratch;
        rings.push_back({offset, height, width, blocks, block_stride, blocks * block_stride});
        front_scratch = offset + kRingRows * blocks * block_stride;
        zeros_floats = std::max(zeros_floats, block_stride);
    };
    const auto separable_scratch = [](const PackedBlock& block, std::size_t columns_of) {
        const std::size_t channels = block.depthwise.blocks * kBlock;
        return channels * separable_columns(channels, columns_of);
    };
    add_ring(1, ceil_divide(3 * (width + 2), kBlock) * kBlock);
    height = ceil_divide(height, 2);
    width = ceil_divide(width, 2);
    add_ring(model.stem.blocks, padded_line(width));
    double cost = static_cast<double>(height * width * 27 * model.stem.blocks * kBlock);
    std::size_t between = 0;
    std::size_t map = kNone;
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
        const PackedBlock& block = model.blocks[i];
        height = ceil_divide(height, block.depthwise.stride);
        width = ceil_divide(width, block.depthwise.stride);
        const std::size_t blocks = 2 * block.pointwise.panels;
        const double own = static_cast<double>(height * width * block.pointwise.in_channels *
                                               (9 + block.pointwise.panels * kPanel));
        if (i < kFrontBlocks) {
            between = std::max(between, separable_scratch(block, width));
            cost += own;
            if (i + 1 < kFrontBlocks) {
                add_ring(blocks, padded_line(width));
                continue;
            }
            map = add_map(height, width, blocks);
            scratch_floats = front_scratch + between;
            add_step({StepKind::front, i, kNone, 0, map, kNone, nullptr, {}, height, 0, cost});
            continue;
        }
        scratch_floats = std::max(scratch_floats, separable_scratch(block, width));
        const std::size_t in = map;
        map = add_map(height, width, blocks);
        add_step({StepKind::separable, i, in, 0, map, kNone, nullptr, {}, height, 0, own});
        for (std::size_t k = 0; k < kLevels; ++k) {
            if (model.taps[k] == i) features[k] = map;
        }
    }

    // The neck, from the coarsest level to the finest.
    const std::size_t blocks = model.features / kBlock;
    std::size_t coarser = kNone;
    for (std::size_t k = kLevels; k-- > 0;) {
        const std::size_t tap = features[k];
        const std::size_t rows = maps[tap].height;
        const std::size_t columns = maps[tap].width;
        const double cells = static_cast<double>(rows * columns);
        const std::size_t lateral = add_map(rows, columns, blocks);
        const double lateral_cost =
            cells * static_cast<double>(model.lateral[k].in_channels * model.features);
        add_step({StepKind::lateral, k, tap, 0, lateral, coarser, nullptr, {}, rows, 0, lateral_cost});
        std::size_t level = lateral;
        const auto all_blocks = [](std::size_t to, std::size_t first, std::size_t count, float slope,
                                   std::vector<OutputBlock>& outputs) {
            for (std::size_t b = 0; b < count; ++b) outputs.push_back({to, first + b, slope});
        };
        if (k + 1 < kLevels) {
            level = add_map(rows, columns, blocks);
            std::vector<OutputBlock> outputs;
            all_blocks(level, 0, blocks, model.neck_slope, outputs);
            add_winograd(k, model.merge[k], lateral, 0, std::move(outputs));
        }
        coarser = level;

        // The context module. Its second convolution's input waits in the place of the third branch, which is
        // written last.
        const std::size_t context = add_map(rows, columns, blocks);
        const std::size_t rest = add_map(rows, columns, blocks / 4);
        std::vector<OutputBlock> first;
        all_blocks(context, 0, blocks / 2, 0.0F, first);
        all_blocks(context, blocks * 3 / 4, blocks / 4, model.neck_slope, first);
        add_winograd(k, model.context[k].first, level, 0, std::move(first));
        std::vector<OutputBlock> second;
        all_blocks(context, blocks / 2, blocks / 4, 0.0F, second);
        all_blocks(rest, 0, blocks / 4, model.neck_slope, second);
        add_winograd(k, model.context[k].second, context, blocks * 3 / 4, std::move(second));
        std::vector<OutputBlock> third;
        all_blocks(context, blocks * 3 / 4, blocks / 4, 0.0F, third);
        add_winograd(k, model.context[k].third, rest, 0, std::move(third));
        features[k] = context;
        const PackedHeads& heads = model.heads[k];
        const double head_cost = cells * static_cast<double>(model.features);
        add_step({StepKind::class_scores,
                  k,
                  context,
                  0,
                  kNone,
                  kNone,
                  nullptr,
                  {},
                  rows,
                  0,
                  head_cost * static_cast<double>(heads.classes.outputs)});
        if (all_deltas) {
            scratch_floats = std::max(scratch_floats, columns * heads.deltas.panels * kPanel);
            add_step({StepKind::deltas,
                      k,
                      context,
                      0,
                      kNone,
                      kNone,
                      nullptr,
                      {},
                      rows,
                      0,
                      head_cost * static_cast<double>(heads.deltas.panels * kPanel)});
        }
        scores_offset[k] = rows * columns * heads.classes.outputs;  // its size, until it has a place
    }
    place_maps();
    cut_tasks();
}

// Every map gets the lowest place that no map of the same time has, the largest ones first.
void Plan::place_maps() {
    std::size_t last = 0;
    for (const Step& step : steps) last = std::max(last, step.phase);
    // Survivors are looked up in them when all is over.
    for (const std::size_t map : features) maps[map].last_phase = last;

    std::vector<std::size_t> order(maps.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return maps[a].floats() > maps[b].floats(); });
    std::vector<std::size_t> placed;  // by offset
    for (const std::size_t m : order) {
        FeatureMap& map = maps[m];
        std::size_t offset = 0;
        for (const std::size_t other : placed) {
            const FeatureMap& there = maps[other];
            if (there.first_phase > map.last_phase || map.first_phase > there.last_phase) continue;
            if (offset + map.floats() <= there.offset) break;
            offset = std::max(offset, there.offset + there.floats());
        }
        map.offset = offset;
        arena_floats = std::max(arena_floats, offset + map.floats());
        const auto behind =
            std::upper_bound(placed.begin(), placed.end(), offset,
                             [&](std::size_t at, std::size_t o) { return at < maps[o].offset; });
        placed.insert(behind, m);
    }
    for (std::size_t& scores : scores_offset) {
        const std::size_t floats = scores;
        scores = arena_floats;
        arena_floats += ceil_divide(floats, kPanel) * kPanel;
    }
}

void Plan::cut_tasks() {
    std::size_t last = 0;
    for (const Step& step : steps) last = std::max(last, step.phase);
    phases.resize(last + 1);
    // The longest first, so that what is left at the end is short.
    std::vector<std::size_t> order(steps.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return steps[a].cost > steps[b].cost; });
    for (const std::size_t s : order) {
        const Step& step = steps[s];
        std::size_t pieces = 1;
        if (threads > 1) {
            pieces = threads * kTasksPerThread;
            if (step.kind == StepKind::front) {
                pieces = threads *
                         std::clamp<std::size_t>(step.units / (threads * kFrontRows), 1, kTasksPerThread);
            } else if (step.kind == StepKind::winograd) {
                pieces = step.units;
            }
        }
        pieces = std::min(pieces, step.units);
        for (std::size_t i = 0; i < pieces; ++i) {
            phases[step.phase].push_back({s, i * step.units / pieces, (i + 1) * step.units / pieces});
        }
    }
}

}  // namespace retinaface::engine
