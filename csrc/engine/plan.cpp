#include "engine/plan.hpp"

#include <algorithm>
#include <numeric>

#include "engine/kernels/kernels.hpp"

namespace retinaface::engine {

namespace {

constexpr std::size_t kFinestStride = 8;
// What stands between the convolutions of a separable layer: in the first level of the cache.
constexpr std::size_t kSeparableFloats = std::size_t{6} << 10U;
// The transformed tiles of a group: half of a second level of 512 KiB, but enough that the weights, which
// every group reads whole, are read seldom.
constexpr std::size_t kGroupFloats = std::size_t{56} << 10U;
constexpr std::size_t kFewestTiles = 6;
constexpr std::size_t kMostTiles = 24;
// Tasks of a phase for each thread: enough that one that is held up does not hold up all.
constexpr std::size_t kTasksPerThread = 3;
// Rows of a chain's output below which a task would mostly compute rows that its neighbours compute too.
constexpr std::size_t kChainRows = 32;
// Smaller maps stay in the cache between two layers, and then threads need not compute each other's rows:
// such layers run one by one. Chains win 4 % of the network at 4096 x 2160 and lose 1 % at 640 x 480.
constexpr std::size_t kChainFloats = std::size_t{3} << 18U;
constexpr std::size_t kChainRowsPerThread = 64;
// Larger maps are overwritten in place where that can be, which costs a copy in the cache.
constexpr std::size_t kInPlaceFloats = std::size_t{1} << 20U;

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
    if (step.in != kNone && step.in == step.out) {
        // In place: not before all that read what was there.
        step.phase = std::max(step.phase, maps[step.in].last_phase + 1);
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
    Step step{StepKind::winograd, in, kNone, units, cost, level, in_block};
    step.winograd = &layer;
    step.out_blocks = std::move(outputs);
    add_step(std::move(step));
}

// Adds the blocks from first_block to last_block, which read the map `in` or, after the stem, the image.
std::size_t Plan::add_chain(const PackedModel& model, std::size_t in, std::size_t first_block,
                            std::size_t last_block) {
    Chain chain{in == kNone, first_block, last_block, {}, 0};
    std::size_t height = 0;
    std::size_t width = 0;
    double cost = 0.0;
    const auto add_ring = [&](std::size_t blocks, std::size_t line) {
        chain.sources.push_back(
            {false, chain.between, kRingRows, height, width, blocks, line, blocks * line});
        chain.between += kRingRows * blocks * line;
        zeros_floats = std::max(zeros_floats, line);
    };
    if (chain.from_image) {
        height = image.height;
        width = image.width;
        add_ring(1, ceil_divide(3 * (width + 2), kBlock) * kBlock);
        height = ceil_divide(height, 2);
        width = ceil_divide(width, 2);
        add_ring(model.stem.blocks, padded_line(width));
        cost += static_cast<double>(height * width * 27 * model.stem.blocks * kBlock);
    } else {
        const FeatureMap& map = maps[in];
        height = map.height;
        width = map.width;
        chain.sources.push_back(
            {true, 0, map.height, map.height, map.width, map.blocks, map.block_stride, map.row_stride});
    }
    std::size_t scratch = 0;
    for (std::size_t i = first_block; i <= last_block; ++i) {
        const PackedBlock& block = model.blocks[i];
        height = ceil_divide(height, block.depthwise.stride);
        width = ceil_divide(width, block.depthwise.stride);
        const std::size_t channels = block.pointwise.in_channels;
        scratch = std::max(scratch, channels * separable_columns(channels, width));
        cost += static_cast<double>(height * width * channels * (9 + block.pointwise.panels * kPanel));
        if (i < last_block) add_ring(2 * block.pointwise.panels, padded_line(width));
    }
    scratch_floats = std::max(scratch_floats, chain.between + scratch);
    const std::size_t out = add_map(height, width, 2 * model.blocks[last_block].pointwise.panels);
    Step step{StepKind::chain, in, out, height, cost};
    step.chain = std::move(chain);
    add_step(std::move(step));
    return out;
}

Plan::Plan(const PackedModel& model, ImageSize image_size, std::size_t thread_count, bool deltas)
    : image(image_size),
      threads(thread_count),
      all_deltas(deltas),
      features(),
      scores_offset(),
      arena_floats(0),
      scratch_floats(0),
      zeros_floats(0) {
    // The backbone.
    std::size_t map = kNone;
    std::size_t block = 0;
    for (std::size_t k = 0; k < kLevels; ++k) {
        const std::size_t scale = kFinestStride << k;
        const std::size_t rows = ceil_divide(image.height, scale);
        const std::size_t floats =
            rows * ceil_divide(image.width, scale) * model.blocks[model.taps[k]].pointwise.panels * kPanel;
        const bool together =
            map == kNone || (floats >= kChainFloats && rows >= kChainRowsPerThread * threads);
        while (block <= model.taps[k]) {
            const std::size_t last = together ? model.taps[k] : block;
            map = add_chain(model, map, block, last);
            block = last + 1;
        }
        features[k] = map;
    }

    // The neck, from the coarsest level to the finest.
    const std::size_t blocks = model.features / kBlock;
    std::size_t coarser = kNone;
    for (std::size_t k = kLevels; k-- > 0;) {
        const std::size_t tap = features[k];
        const std::size_t rows = maps[tap].height;
        const std::size_t columns = maps[tap].width;
        const double cells = static_cast<double>(rows * columns);
        // A large map in place, where it has as many channels before as after: the finest is a third of all
        // memory.
        const bool in_place = maps[tap].blocks == blocks && maps[tap].floats() >= kInPlaceFloats;
        const std::size_t lateral = in_place ? tap : add_map(rows, columns, blocks);
        const std::size_t in_channels = model.lateral[k].in_channels;
        if (in_place) {
            scratch_floats = std::max(scratch_floats, in_channels * separable_columns(in_channels, columns));
        }
        const double lateral_cost =
            cells * static_cast<double>(model.lateral[k].in_channels * model.features);
        Step step{StepKind::lateral, tap, lateral, rows, lateral_cost, k};
        step.addend = coarser;
        add_step(std::move(step));
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
        add_step({StepKind::class_scores, context, kNone, rows,
                  head_cost * static_cast<double>(heads.classes.outputs), k});
        if (all_deltas) {
            scratch_floats = std::max(scratch_floats, columns * heads.deltas.panels * kPanel);
            add_step({StepKind::deltas, context, kNone, rows,
                      head_cost * static_cast<double>(heads.deltas.panels * kPanel), k});
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
    for (Step& step : steps) {
        if (step.kind == StepKind::chain && step.in != kNone) {
            step.chain.sources.front().offset = maps[step.in].offset;
        }
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
            if (step.kind == StepKind::chain && step.chain.first_block < step.chain.last_block) {
                pieces = threads *
                         std::clamp<std::size_t>(step.units / (threads * kChainRows), 1, kTasksPerThread);
            } else if (step.kind == StepKind::winograd) {
                pieces = step.units;
            }
        }
        pieces = std::min(pieces, step.units);
        for (std::size_t i = 0; i < pieces; ++i) {
            phases[step.phase].push_back({s, i * step.units / pieces, (i + 1) * step.units / pieces});
        }
    }
    for (const std::vector<Task>& tasks : phases) task_counts.push_back(tasks.size());
}

}  // namespace retinaface::engine
