// What a plan must be for its tasks to run in any order within a phase, checked from the steps alone: nothing
// that the plan says about phases of maps is believed.
#include "engine/plan.hpp"

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "check.hpp"
#include "engine/kernels/kernels.hpp"
#include "engine/model.hpp"
#include "engine/packing.hpp"
#include "random_network.hpp"

namespace {

using namespace retinaface;
using namespace retinaface::engine;

using Block = std::pair<std::size_t, std::size_t>;  // map, block of 8 channels

std::size_t ceil_divide(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

PackedModel packed(const check::NetworkShape& shape) {
    const check::RandomNetwork network(shape, 3);
    return pack(read_model(network.tensors, NetworkOptions{check::pyramid(shape.anchors)}));
}

// Few channels but where levels leave the backbone: there, medium images already have large maps.
check::NetworkShape wide_taps() {
    check::NetworkShape shape{8, std::vector<std::size_t>(13, 16), 64, {2, 1, 3}};
    shape.blocks[4] = 64;
    shape.blocks[10] = 688;
    shape.blocks[12] = 1344;
    return shape;
}

std::vector<Block> reads(const Plan& plan, const Step& step) {
    std::vector<Block> blocks;
    const auto all_of = [&](std::size_t map) {
        if (map == kNone) return;
        for (std::size_t b = 0; b < plan.maps[map].blocks; ++b) blocks.emplace_back(map, b);
    };
    if (step.kind == StepKind::winograd) {
        const std::size_t count = step.winograd->in_channels / kBlock;
        for (std::size_t b = 0; b < count; ++b) blocks.emplace_back(step.in, step.in_block + b);
    } else {
        all_of(step.in);
    }
    all_of(step.addend);
    return blocks;
}

std::vector<Block> writes(const Plan& plan, const Step& step) {
    std::vector<Block> blocks;
    if (step.out != kNone) {
        for (std::size_t b = 0; b < plan.maps[step.out].blocks; ++b) blocks.emplace_back(step.out, b);
    }
    for (const OutputBlock& block : step.out_blocks) blocks.emplace_back(block.map, block.block);
    return blocks;
}

// Every unit of every step is in one task, of the phase of its step.
void check_tasks(const Plan& plan) {
    std::vector<std::vector<int>> done;
    for (const Step& step : plan.steps) done.emplace_back(step.units, 0);
    for (std::size_t phase = 0; phase < plan.phases.size(); ++phase) {
        CHECK(!plan.phases[phase].empty());
        for (const Task& task : plan.phases[phase]) {
            CHECK(task.step < plan.steps.size());
            CHECK(plan.steps[task.step].phase == phase);
            CHECK(task.begin < task.end && task.end <= plan.steps[task.step].units);
            for (std::size_t unit = task.begin; unit < task.end; ++unit) ++done[task.step][unit];
        }
    }
    for (const std::vector<int>& units : done) {
        CHECK(std::all_of(units.begin(), units.end(), [](int times) { return times == 1; }));
    }
}

// Steps are listed in an order in which they could run one by one. What a step reads is what it would read
// then: whoever writes it before the step in the list does so in an earlier phase, whoever writes it behind
// in a later one; only a row that the step itself replaces is read and written at once. And no two steps of a
// phase write the same.
void check_order(const Plan& plan) {
    std::map<Block, std::vector<std::size_t>> writers;
    for (std::size_t s = 0; s < plan.steps.size(); ++s) {
        for (const Block& block : writes(plan, plan.steps[s])) writers[block].push_back(s);
    }
    for (std::size_t s = 0; s < plan.steps.size(); ++s) {
        const Step& step = plan.steps[s];
        for (const Block& block : reads(plan, step)) {
            CHECK(block.second < plan.maps[block.first].blocks);
            bool written = false;
            for (const std::size_t writer : writers[block]) {
                const std::size_t phase = plan.steps[writer].phase;
                written = written || writer < s;
                if (writer == s) {
                    CHECK(step.kind == StepKind::lateral && step.in == step.out);
                } else {
                    CHECK(writer < s ? phase < step.phase : phase > step.phase);
                }
            }
            CHECK(written);
        }
    }
    for (std::size_t phase = 0; phase < plan.phases.size(); ++phase) {
        std::set<Block> written;
        for (const Step& step : plan.steps) {
            if (step.phase != phase) continue;
            for (const Block& block : writes(plan, step)) {
                CHECK(block.second < plan.maps[block.first].blocks);
                CHECK(written.insert(block).second);
            }
        }
    }
}

// Maps that are in use at the same time do not overlap, and all is within the arena.
void check_memory(const PackedModel& model, const Plan& plan) {
    struct Life {
        std::size_t first = kNone;
        std::size_t last = 0;
    };
    std::vector<Life> lives(plan.maps.size());
    for (const Step& step : plan.steps) {
        for (const Block& block : writes(plan, step)) {
            lives[block.first].first = std::min(lives[block.first].first, step.phase);
            lives[block.first].last = std::max(lives[block.first].last, step.phase);
        }
        for (const Block& block : reads(plan, step)) {
            lives[block.first].last = std::max(lives[block.first].last, step.phase);
        }
    }
    for (const std::size_t map : plan.features)
        lives[map].last = plan.phases.size();  // read when all is over

    struct Range {
        std::size_t begin;
        std::size_t end;
        Life life;
    };
    std::vector<Range> ranges;
    for (std::size_t m = 0; m < plan.maps.size(); ++m) {
        const FeatureMap& map = plan.maps[m];
        CHECK(lives[m].first != kNone);
        // A column of zeros on the left, and on the right what a tile reads that begins within the row.
        CHECK(map.block_stride >= (1 + ceil_divide(map.width, kTile) * kTile + 1) * kBlock);
        CHECK(map.row_stride >= map.blocks * map.block_stride);
        CHECK(plan.zeros_floats >= map.block_stride);
        ranges.push_back({map.offset, map.offset + map.height * map.row_stride, lives[m]});
    }
    for (std::size_t k = 0; k < kLevels; ++k) {
        const std::size_t stride = std::size_t{8} << k;
        const std::size_t rows = ceil_divide(plan.image.height, stride);
        const std::size_t columns = ceil_divide(plan.image.width, stride);
        CHECK(plan.maps[plan.features[k]].height == rows && plan.maps[plan.features[k]].width == columns);
        const std::size_t begin = plan.scores_offset[k];
        ranges.push_back({begin, begin + rows * columns * model.heads[k].classes.outputs, {0, kNone}});
    }
    for (std::size_t i = 0; i < ranges.size(); ++i) {
        CHECK(ranges[i].begin < ranges[i].end && ranges[i].end <= plan.arena_floats);
        for (std::size_t j = 0; j < i; ++j) {
            const bool together =
                ranges[i].life.first <= ranges[j].life.last && ranges[j].life.first <= ranges[i].life.last;
            const bool apart = ranges[i].end <= ranges[j].begin || ranges[j].end <= ranges[i].begin;
            CHECK(apart || !together);
        }
    }
}

void check_chain(const PackedModel& model, const Plan& plan, const Step& step) {
    const Chain& chain = step.chain;
    CHECK(chain.from_image == (step.in == kNone));
    CHECK(chain.first_block <= chain.last_block);
    const std::size_t layers = chain.last_block - chain.first_block + 1 + (chain.from_image ? 1 : 0);
    CHECK(chain.sources.size() == layers && layers <= kMostChainSources);
    CHECK(step.units == plan.maps[step.out].height);
    std::size_t end = 0;
    for (std::size_t i = 0; i < chain.sources.size(); ++i) {
        const RowSource& source = chain.sources[i];
        CHECK(source.in_arena == (i == 0 && !chain.from_image));
        if (source.in_arena) {
            CHECK(source.offset == plan.maps[step.in].offset && source.rows >= source.height);
            continue;
        }
        CHECK(source.offset >= end);
        CHECK(source.rows >= 4);
        CHECK(source.row_stride >= source.blocks * source.block_stride);
        const bool pixels = i == 0;
        const std::size_t columns = pixels ? ceil_divide(3 * (source.width + 2), kBlock) : source.width + 2;
        CHECK(source.block_stride >= columns * kBlock);
        CHECK(plan.zeros_floats >= source.block_stride);
        end = source.offset + source.rows * source.row_stride;
    }
    CHECK(chain.between >= end);
    std::size_t width = chain.sources.front().width;
    if (chain.from_image) width = ceil_divide(width, 2);
    for (std::size_t b = chain.first_block; b <= chain.last_block; ++b) {
        width = ceil_divide(width, model.blocks[b].depthwise.stride);
        const std::size_t channels = model.blocks[b].pointwise.in_channels;
        CHECK(plan.scratch_floats >= chain.between + channels * separable_columns(channels, width));
    }
    CHECK(width == plan.maps[step.out].width);
}

// The scratch of a thread has room for every step.
void check_scratch(const PackedModel& model, const Plan& plan) {
    std::size_t next_block = 0;
    for (const Step& step : plan.steps) {
        switch (step.kind) {
            case StepKind::chain:
                check_chain(model, plan, step);
                CHECK(step.chain.first_block == next_block);
                next_block = step.chain.last_block + 1;
                break;
            case StepKind::winograd: {
                const FeatureMap& in = plan.maps[step.in];
                const std::size_t tiles = ceil_divide(in.height, kTile) * ceil_divide(in.width, kTile);
                CHECK(step.units >= 1 && step.units <= tiles);
                CHECK(step.out_blocks.size() == 2 * step.winograd->panels);
                const std::size_t most = ceil_divide(tiles, step.units);
                CHECK(plan.scratch_floats >=
                      kPositions * (most * (step.winograd->in_channels + kPanel) + 2 * kPositionPadding));
                break;
            }
            case StepKind::lateral: {
                const FeatureMap& out = plan.maps[step.out];
                const std::size_t channels = plan.maps[step.in].blocks * kBlock;
                CHECK(step.units == out.height);
                // A row that is replaced is copied first, piece by piece.
                CHECK(step.in != step.out ||
                      plan.scratch_floats >= channels * separable_columns(channels, out.width));
                break;
            }
            case StepKind::class_scores:
                CHECK(step.units == plan.maps[step.in].height);
                break;
            case StepKind::deltas:
                CHECK(plan.all_deltas);
                CHECK(step.units == plan.maps[step.in].height);
                CHECK(plan.scratch_floats >=
                      plan.maps[step.in].width * model.heads[step.level].deltas.panels * kPanel);
                break;
        }
    }
    CHECK(next_block == model.blocks.size());
}

void check_plan(const PackedModel& model, ImageSize image, std::size_t threads, bool deltas) {
    const Plan plan(model, image, threads, deltas);
    CHECK(plan.is_for(image, threads, deltas));
    CHECK(!plan.is_for(image, threads + 1, deltas) && !plan.is_for(image, threads, !deltas));
    CHECK(!plan.is_for({image.height + 1, image.width}, threads, deltas));
    CHECK(!plan.is_for({image.height, image.width + 1}, threads, deltas));
    check_tasks(plan);
    check_order(plan);
    check_memory(model, plan);
    check_scratch(model, plan);
}

const std::vector<ImageSize>& sizes() {
    static const std::vector<ImageSize> all = {
        {1, 1},     {1, 2},    {2, 1},    {1, 4000},    {4000, 1},  {7, 9},       {8, 8},       {16, 17},
        {31, 33},   {32, 32},  {33, 65},  {64, 48},     {97, 61},   {130, 70},    {217, 333},   {480, 640},
        {475, 637}, {1024, 8}, {8, 1024}, {1080, 1920}, {18736, 8}, {2160, 4096}, {1023, 1025},
    };
    return all;
}

void test_plans() {
    const std::vector<PackedModel> models = []() {
        std::vector<PackedModel> list;
        list.push_back(packed(check::mobilenet(2, 64)));
        list.push_back(packed(check::mobilenet(4, 128)));
        list.push_back(packed(wide_taps()));
        return list;
    }();
    for (const PackedModel& model : models) {
        for (const ImageSize size : sizes()) {
            for (const std::size_t threads : {1U, 2U, 3U, 4U, 7U, 64U}) {
                check_plan(model, size, threads, false);
                if (threads < 4) check_plan(model, size, threads, true);
            }
        }
    }
    check::Random random(8);
    for (std::size_t i = 0; i < 60; ++i) {
        check_plan(models[i % 3], {1 + random() % 700, 1 + random() % 700}, 1 + random() % 8,
                   random() % 2 == 0);
    }
}

// The sizes above are to meet every way in which layers are joined.
void test_ways_that_are_met() {
    const PackedModel model = packed(wide_taps());
    std::size_t in_place = 0;
    std::size_t apart = 0;
    std::set<std::pair<std::size_t, std::size_t>> chains;
    for (const ImageSize size : sizes()) {
        for (const Step& step : Plan(model, size, 1, false).steps) {
            if (step.kind == StepKind::lateral) ++(step.in == step.out ? in_place : apart);
            if (step.kind == StepKind::chain) chains.insert({step.chain.first_block, step.chain.last_block});
        }
    }
    CHECK(in_place > 0 && apart > 0);
    CHECK(chains.count({0, 4}) == 1);
    CHECK(chains.count({5, 5}) == 1 && chains.count({5, 10}) == 1);
    CHECK(chains.count({11, 11}) == 1 && chains.count({11, 12}) == 1);
}

// More of what is there at the same time is no more than it must be: at 4K the promise is 100 MB in all.
void test_memory_of_large_images() {
    const PackedModel model = packed(check::mobilenet(2, 64));
    const Plan plan(model, {2160, 4096}, 2, false);
    const std::size_t floats = plan.arena_floats + 2 * plan.scratch_floats + plan.zeros_floats;
    CHECK(floats * sizeof(float) < 100'000'000U);
}

}  // namespace

CHECK_MAIN(test_plans, test_ways_that_are_met, test_memory_of_large_images)
