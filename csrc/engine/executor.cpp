#include "engine/executor.hpp"

#include <algorithm>
#include <cstring>

namespace retinaface::engine {

namespace {

constexpr float kLinear = 1.0F;  // slope of a rectifier that does nothing

class Runner {
  public:
    Runner(const Call& call, std::size_t thread) noexcept
        : call_(call),
          kernels_(*call.kernels),
          model_(*call.model),
          plan_(*call.plan),
          scratch_(call.scratch + thread * plan_.scratch_floats) {}

    void run(const Task& task) const noexcept {
        const Step& step = plan_.steps[task.step];
        switch (step.kind) {
            case StepKind::chain:
                chain(step, task.begin, task.end);
                break;
            case StepKind::lateral:
                lateral(step, task.begin, task.end);
                break;
            case StepKind::winograd:
                winograd(step, task.begin, task.end);
                break;
            case StepKind::class_scores:
                class_scores(step, task.begin, task.end);
                break;
            case StepKind::deltas:
                deltas(step, task.begin, task.end);
                break;
        }
    }

    // Column 0 of a block of a row.
    [[nodiscard]] float* place(const FeatureMap& map, std::size_t row, std::size_t block) const noexcept {
        return call_.arena + map.offset + row * map.row_stride + block * map.block_stride + kBlock;
    }

  private:
    [[nodiscard]] Row zero_row() const noexcept { return {call_.zeros + kBlock, 0}; }

    // Row `row` of a map, which may lie above or below it.
    [[nodiscard]] Row row_of(const FeatureMap& map, std::ptrdiff_t row, std::size_t block) const noexcept {
        if (row < 0 || static_cast<std::size_t>(row) >= map.height) return zero_row();
        return {place(map, static_cast<std::size_t>(row), block), map.block_stride};
    }

    static void clear_left(float* column0) noexcept { std::fill_n(column0 - kBlock, kBlock, 0.0F); }
    // As far as a tile that begins within the row reads.
    static void clear_right(float* column0, std::size_t width) noexcept {
        const std::size_t end = (width + kTile - 1) / kTile * kTile + 1;
        std::fill_n(column0 + width * kBlock, (end - width) * kBlock, 0.0F);
    }
    static void clear_padding(MutableRow row, std::size_t blocks, std::size_t width) noexcept {
        for (std::size_t b = 0; b < blocks; ++b) {
            clear_left(row.data + b * row.block_stride);
            clear_right(row.data + b * row.block_stride, width);
        }
    }

    // One row of a separable layer, with its padding.
    void separable_row(const PackedBlock& block, const Row* rows, std::size_t width, float* between,
                       MutableRow out) const noexcept {
        const std::size_t channels = block.depthwise.blocks * kBlock;
        const std::size_t columns = separable_columns(channels, width);
        for (std::size_t x = 0; x < width; x += columns) {
            const std::size_t count = std::min(columns, width - x);
            const std::size_t stride = count * kBlock;
            kernels_.depthwise_row(rows, block.depthwise.weights.data(), block.depthwise.bias.data(),
                                   model_.backbone_slope, block.depthwise.blocks, block.depthwise.stride, x,
                                   count, {between, stride});
            kernels_.pointwise_row({between, stride}, channels, block.pointwise.weights.data(),
                                   block.pointwise.bias.data(), model_.backbone_slope, block.pointwise.panels,
                                   count, {nullptr, 0}, 0, {out.data + x * kBlock, out.block_stride});
        }
        clear_padding(out, 2 * block.pointwise.panels, width);
    }

    void lateral(const Step& step, std::size_t begin, std::size_t end) const noexcept {
        const PackedPointwise& layer = model_.lateral[step.level];
        const FeatureMap& in = plan_.maps[step.in];
        const FeatureMap& out = plan_.maps[step.out];
        const std::size_t columns = separable_columns(layer.in_channels, out.width);
        for (std::size_t y = begin; y < end; ++y) {
            Row addend{nullptr, 0};
            if (step.addend != kNone) {
                const FeatureMap& coarser = plan_.maps[step.addend];
                addend = {place(coarser, y / 2, 0), coarser.block_stride};
            }
            const MutableRow to{place(out, y, 0), out.block_stride};
            for (std::size_t x = 0; x < out.width; x += columns) {
                const std::size_t count = std::min(columns, out.width - x);
                Row from{place(in, y, 0) + x * kBlock, in.block_stride};
                if (step.in == step.out) {
                    const std::size_t stride = count * kBlock;
                    for (std::size_t b = 0; b < in.blocks; ++b) {
                        std::memcpy(scratch_ + b * stride, from.data + b * from.block_stride,
                                    stride * sizeof(float));
                    }
                    from = {scratch_, stride};
                }
                kernels_.pointwise_row(from, layer.in_channels, layer.weights.data(), layer.bias.data(),
                                       model_.neck_slope, layer.panels, count, addend, x,
                                       {to.data + x * kBlock, to.block_stride});
            }
            clear_padding(to, out.blocks, out.width);
        }
    }

    // A run of tiles in one row of tiles.
    struct Segment {
        std::size_t row;     // of tiles
        std::size_t column;  // of tiles
        std::size_t count;
        std::size_t place;  // of its first tile in the group
    };
    template <typename Visit>
    static void for_segments(std::size_t first, std::size_t end, std::size_t tiles_per_row,
                             const Visit& visit) noexcept {
        for (std::size_t tile = first; tile < end;) {
            const std::size_t column = tile % tiles_per_row;
            const std::size_t count = std::min(tiles_per_row - column, end - tile);
            visit(Segment{tile / tiles_per_row, column, count, tile - first});
            tile += count;
        }
    }

    void winograd(const Step& step, std::size_t begin, std::size_t end) const noexcept {
        const FeatureMap& in = plan_.maps[step.in];
        const std::size_t tiles_per_row = (in.width + kTile - 1) / kTile;
        const std::size_t tiles = tiles_per_row * ((in.height + kTile - 1) / kTile);
        for (std::size_t unit = begin; unit < end; ++unit) {
            winograd_group(step, in, tiles_per_row, unit * tiles / step.units,
                           (unit + 1) * tiles / step.units);
        }
    }

    void winograd_group(const Step& step, const FeatureMap& in, std::size_t tiles_per_row, std::size_t first,
                        std::size_t end) const noexcept {
        const PackedWinograd& layer = *step.winograd;
        const std::size_t count = end - first;
        const std::size_t block_stride = count * kBlock;
        const std::size_t position_stride = count * layer.in_channels + kPositionPadding;
        const std::size_t product_stride = count * kPanel + kPositionPadding;
        float* const patches = scratch_;
        float* const products = scratch_ + kPositions * position_stride;

        for_segments(first, end, tiles_per_row, [&](const Segment& segment) {
            Row rows[kPatch];
            for (std::size_t i = 0; i < kPatch; ++i) {
                rows[i] = row_of(in, static_cast<std::ptrdiff_t>(segment.row * kTile + i) - 1, step.in_block);
                if (rows[i].block_stride != 0) rows[i].data += segment.column * kTile * kBlock;
            }
            kernels_.winograd_input(rows, layer.in_channels / kBlock, segment.count, position_stride,
                                    block_stride, patches + segment.place * kBlock);
        });
        for (std::size_t panel = 0; panel < layer.panels; ++panel) {
            kernels_.winograd_multiply(patches, position_stride, block_stride, layer.in_channels,
                                       layer.weights.data() + panel * kPositions * layer.in_channels * kPanel,
                                       count, product_stride, products);
            for (std::size_t half = 0; half < 2; ++half) {
                const OutputBlock& to = step.out_blocks[2 * panel + half];
                const FeatureMap& out = plan_.maps[to.map];
                for_segments(first, end, tiles_per_row, [&](const Segment& segment) {
                    const std::size_t y = segment.row * kTile;
                    const std::size_t x = segment.column * kTile;
                    const std::size_t valid_rows = std::min(kTile, out.height - y);
                    const bool at_end = segment.column + segment.count == tiles_per_row;
                    // NOLINTNEXTLINE(misc-const-correctness): written by the kernel)
                    float* rows[kTile] = {};
                    for (std::size_t i = 0; i < valid_rows; ++i) {
                        rows[i] = place(out, y + i, to.block);
                        if (segment.column == 0) clear_left(rows[i]);
                        if (at_end) clear_right(rows[i], out.width);
                        rows[i] += x * kBlock;
                    }
                    kernels_.winograd_output(
                        products + (half * count + segment.place) * kBlock, product_stride, segment.count,
                        layer.bias.data() + (2 * panel + half) * kBlock, to.slope, valid_rows,
                        at_end ? out.width - x : segment.count * kTile, rows);
                });
            }
        }
    }

    void class_scores(const Step& step, std::size_t begin, std::size_t end) const noexcept {
        const PackedClassHead& head = model_.heads[step.level].classes;
        const FeatureMap& in = plan_.maps[step.in];
        for (std::size_t y = begin; y < end; ++y) {
            kernels_.class_scores_row({place(in, y, 0), in.block_stride}, model_.features,
                                      head.weights.data(), head.bias.data(), head.outputs, in.width,
                                      call_.scores[step.level] + y * in.width * head.outputs);
        }
    }

    // Outputs [first, first + count) of each cell of a row, from blocks of channels to rows of anchors.
    static void scatter(const float* row, std::size_t block_stride, std::size_t first, std::size_t count,
                        std::size_t width, float* out) noexcept {
        for (std::size_t done = 0; done < count;) {
            const std::size_t lane = (first + done) % kBlock;
            const std::size_t take = std::min(kBlock - lane, count - done);
            const float* from = row + (first + done) / kBlock * block_stride + lane;
            float* to = out + done;
            for (std::size_t x = 0; x < width; ++x, from += kBlock, to += count) {
                if (take == kBlock) {
                    std::memcpy(to, from, kBlock * sizeof(float));
                } else {
                    std::memcpy(to, from, take * sizeof(float));
                }
            }
            done += take;
        }
    }

    void deltas(const Step& step, std::size_t begin, std::size_t end) const noexcept {
        const PackedHeads& heads = model_.heads[step.level];
        const FeatureMap& in = plan_.maps[step.in];
        const RawLevel& raw = call_.raw[step.level];
        const std::size_t boxes = 4 * heads.anchors;
        const std::size_t landmarks = 10 * heads.anchors;
        const std::size_t block_stride = in.width * kBlock;
        for (std::size_t y = begin; y < end; ++y) {
            kernels_.pointwise_row({place(in, y, 0), in.block_stride}, model_.features,
                                   heads.deltas.weights.data(), heads.deltas.bias.data(), kLinear,
                                   heads.deltas.panels, in.width, {nullptr, 0}, 0, {scratch_, block_stride});
            const std::size_t first_cell = y * in.width;
            scatter(scratch_, block_stride, 0, boxes, in.width, raw.box_deltas + first_cell * boxes);
            scatter(scratch_, block_stride, boxes, landmarks, in.width,
                    raw.landmark_deltas + first_cell * landmarks);
        }
    }

    void chain(const Step& step, std::size_t begin, std::size_t end) const noexcept;

    const Call& call_;
    const EngineKernels& kernels_;
    const PackedModel& model_;
    const Plan& plan_;
    float* const scratch_;

    friend class ChainRunner;
};

// Computes the rows of a chain on demand: a layer's row when the next layer reads it. Layer i is the one
// whose rows chain.sources[i] holds.
class ChainRunner {
  public:
    ChainRunner(const Runner& runner, const Chain& chain, std::size_t begin) noexcept
        : runner_(runner), chain_(chain) {
        // The first row of each layer that this task needs, from the last layer back.
        std::size_t row = begin;
        for (std::size_t layer = chain.sources.size(); layer-- > 0;) {
            row = stride_after(layer) * row;
            row -= row > 0 ? 1 : 0;
            next_[layer] = chain.sources[layer].in_arena ? chain.sources[layer].height : row;
        }
    }

    // The three rows that the chain's output row `row` reads.
    void rows_for_output(std::size_t row, Row* rows) noexcept {
        const std::size_t last = chain_.sources.size() - 1;
        need(last, stride_after(last) * row + 1);
        rows_for(last, row, rows);
    }

    [[nodiscard]] float* between() const noexcept { return runner_.scratch_ + chain_.between; }

  private:
    // Sees to it that the rows of `layer` up to and with `row`, if there are so many, are there.
    void need(std::size_t layer, std::size_t row) noexcept {
        const std::size_t end = std::min(row + 1, chain_.sources[layer].height);
        for (; next_[layer] < end; ++next_[layer]) produce(layer, next_[layer]);
    }

    // The three rows of `layer` that row `row` of the layer after it reads.
    void rows_for(std::size_t layer, std::size_t row, Row* rows) const noexcept {
        const std::size_t centre = stride_after(layer) * row;
        for (std::size_t i = 0; i < 3; ++i) {
            const std::size_t y = centre + i;  // one too many, so that it is not negative
            const bool inside = y >= 1 && y - 1 < chain_.sources[layer].height;
            rows[i] =
                inside ? Row{place(layer, y - 1), chain_.sources[layer].block_stride} : runner_.zero_row();
        }
    }

    // Block of the backbone that reads the rows of `layer`; the stem reads those of an image.
    [[nodiscard]] const PackedBlock& block_after(std::size_t layer) const noexcept {
        return runner_.model_.blocks[chain_.first_block + layer - (chain_.from_image ? 1 : 0)];
    }
    [[nodiscard]] std::size_t stride_after(std::size_t layer) const noexcept {
        return chain_.from_image && layer == 0 ? 2 : block_after(layer).depthwise.stride;
    }

    // Column 0 of the first block of a row. The image has one pixel of three floats before it.
    [[nodiscard]] float* place(std::size_t layer, std::size_t row) const noexcept {
        const RowSource& source = chain_.sources[layer];
        float* const base = source.in_arena ? runner_.call_.arena : runner_.scratch_;
        const std::size_t padding = chain_.from_image && layer == 0 ? 3 : kBlock;
        return base + source.offset + row % source.rows * source.row_stride + padding;
    }

    void produce(std::size_t layer, std::size_t row) noexcept {
        const RowSource& source = chain_.sources[layer];
        const MutableRow out{place(layer, row), source.block_stride};
        if (layer == 0) {
            const ImageView& image = runner_.call_.image;
            runner_.kernels_.convert_row(image.pixels + static_cast<std::ptrdiff_t>(row) * image.row_stride,
                                         source.width, runner_.call_.mean, out.data);
            std::fill_n(out.data - 3, 3, 0.0F);
            std::fill_n(out.data + 3 * source.width, 3, 0.0F);
            return;
        }
        need(layer - 1, stride_after(layer - 1) * row + 1);
        Row rows[3];
        rows_for(layer - 1, row, rows);
        if (chain_.from_image && layer == 1) {
            const PackedStem& stem = runner_.model_.stem;
            const float* const pixels[3] = {rows[0].data, rows[1].data, rows[2].data};
            runner_.kernels_.stem_row(pixels, stem.weights.data(), stem.bias.data(),
                                      runner_.model_.backbone_slope, stem.blocks, source.width,
                                      runner_.call_.image.order == ChannelOrder::rgb, out);
            Runner::clear_padding(out, source.blocks, source.width);
            return;
        }
        runner_.separable_row(block_after(layer - 1), rows, source.width, between(), out);
    }

    const Runner& runner_;
    const Chain& chain_;
    std::size_t next_[kMostChainSources] = {};
};

void Runner::chain(const Step& step, std::size_t begin, std::size_t end) const noexcept {
    const FeatureMap& out = plan_.maps[step.out];
    ChainRunner rows_of_chain(*this, step.chain, begin);
    for (std::size_t y = begin; y < end; ++y) {
        Row rows[3];
        rows_of_chain.rows_for_output(y, rows);
        separable_row(model_.blocks[step.chain.last_block], rows, out.width, rows_of_chain.between(),
                      {place(out, y, 0), out.block_stride});
    }
}

}  // namespace

void run_task(const Call& call, const Task& task, std::size_t thread) noexcept {
    Runner(call, thread).run(task);
}

void deltas_at(const Call& call, std::size_t level, const std::size_t* cells, std::size_t count,
               std::size_t panels, float* gathered, float* out) noexcept {
    const Runner runner(call, 0);
    const FeatureMap& map = call.plan->maps[call.plan->features[level]];
    const PackedHeads& heads = call.model->heads[level];
    const std::size_t stride = count * kBlock;
    for (std::size_t i = 0; i < count; ++i) {
        const float* const from = runner.place(map, cells[i] / map.width, 0) + cells[i] % map.width * kBlock;
        for (std::size_t b = 0; b < map.blocks; ++b) {
            std::memcpy(gathered + b * stride + i * kBlock, from + b * map.block_stride,
                        kBlock * sizeof(float));
        }
    }
    call.kernels->pointwise_row({gathered, stride}, call.model->features, heads.deltas.weights.data(),
                                heads.deltas.bias.data(), kLinear, panels, count, {nullptr, 0}, 0,
                                {out, stride});
}

}  // namespace retinaface::engine
