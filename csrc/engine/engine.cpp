#include "retinaface/engine.hpp"

#include <algorithm>
#include <chrono>

#include "engine/denormals.hpp"
#include "engine/executor.hpp"
#include "engine/model.hpp"
#include "engine/packing.hpp"
#include "engine/thread_pool.hpp"
#include "engine/workspace.hpp"

namespace retinaface {

namespace {

using engine::Call;
using engine::CallWorkspace;

// Cells whose heads are computed together.
constexpr std::size_t kCellsAtOnce = 24;
constexpr std::size_t kFinestStride = 8;

struct Phases {
    const Call* call;
    const engine::Plan* plan;
};

// NOLINTNEXTLINE(misc-const-correctness): the type of a task)
void run_phase_task(void* context, std::size_t phase, std::size_t task, std::size_t thread) noexcept {
    const auto& phases = *static_cast<const Phases*>(context);
    const engine::FlushDenormals guard;
    engine::run_task(*phases.call, phases.plan->phases[phase][task], thread);
}

// The heads at the cells of some anchors.
class HeadDeltas final : public DeltaSource {
  public:
    HeadDeltas(const Call& call, CallWorkspace& workspace) : call_(call) {
        std::size_t panels = 0;
        for (const engine::PackedHeads& level : call.model->heads) {
            panels = std::max(panels, level.deltas.panels);
        }
        const std::size_t gathered = call.model->features * kCellsAtOnce;
        gathered_ = workspace.heads(gathered + panels * engine::kPanel * kCellsAtOnce);
        out_ = gathered_ + gathered;
    }

    void boxes(std::size_t level, const std::uint32_t* anchors, std::size_t count,
               float* deltas) const noexcept override {
        heads(level, anchors, count, 4, 0, deltas);
    }

    void landmarks(std::size_t level, const std::uint32_t* anchors, std::size_t count,
                   float* deltas) const noexcept override {
        heads(level, anchors, count, 10, 4 * call_.model->heads[level].anchors, deltas);
    }

  private:
    // Of each anchor the `width` outputs of its place in its cell, which begin at output `first` of the cell.
    void heads(std::size_t level, const std::uint32_t* anchors, std::size_t count, std::size_t width,
               std::size_t first, float* deltas) const noexcept {
        const engine::FlushDenormals guard;
        const std::size_t per_cell = call_.model->heads[level].anchors;
        const std::size_t panels = (first + width * per_cell + engine::kPanel - 1) / engine::kPanel;
        for (std::size_t begin = 0; begin < count; begin += kCellsAtOnce) {
            const std::size_t batch = std::min(kCellsAtOnce, count - begin);
            std::size_t cells[kCellsAtOnce];
            std::size_t places[kCellsAtOnce];
            std::size_t found = 0;
            for (std::size_t i = 0; i < batch; ++i) {
                const std::size_t cell = anchors[begin + i] / per_cell;
                // Neighbours in one cell share it; anchors in no order may have it computed again.
                if (found == 0 || cells[found - 1] != cell) cells[found++] = cell;
                places[i] = found - 1;
            }
            engine::deltas_at(call_, level, cells, found, panels, gathered_, out_);
            for (std::size_t i = 0; i < batch; ++i) {
                const std::size_t output = first + anchors[begin + i] % per_cell * width;
                for (std::size_t n = output; n < output + width; ++n) {
                    *deltas++ = out_[n / engine::kBlock * engine::kBlock * found +
                                     places[i] * engine::kBlock + n % engine::kBlock];
                }
            }
        }
    }

    const Call& call_;
    float* gathered_ = nullptr;
    float* out_ = nullptr;
};

}  // namespace

struct Engine::Implementation {
    Implementation(const std::vector<NamedTensor>& tensors, const NetworkOptions& network_options,
                   std::size_t threads)
        : options(network_options),
          model(engine::pack(engine::read_model(tensors, options))),
          pool(threads) {}

    // Runs the network of one image; `after` sees the call while its memory is still there.
    template <typename After>
    void run(const ImageView& image, const RawLevel* raw, const After& after) const {
        const engine::CallWorkspaces::Lease workspace(workspaces);
        Call call{};
        {
            // A row of the finest map is the least that a thread can be given.
            engine::ThreadPool::Team team(pool, (image.size.height + kFinestStride - 1) / kFinestStride);
            const engine::Plan& plan = workspace->prepare(model, image.size, team.threads(), raw != nullptr);
            call.kernels = &kernels;
            call.model = &model;
            call.plan = &plan;
            call.image = image;
            for (std::size_t c = 0; c < 3; ++c) {
                call.mean[c] = options.mean_bgr[image.order == ChannelOrder::rgb ? 2 - c : c];
            }
            call.arena = workspace->arena();
            call.scratch = workspace->scratch();
            call.zeros = workspace->zeros();
            call.raw = raw;
            for (std::size_t k = 0; k < engine::kLevels; ++k) {
                call.scores[k] = raw != nullptr ? raw[k].class_scores : call.arena + plan.scores_offset[k];
            }
            Phases phases{&call, &plan};
            team.run(plan.task_counts.data(), plan.phases.size(), &run_phase_task, &phases);
        }
        after(call, *workspace);
    }

    NetworkOptions options;
    engine::PackedModel model;
    // Looked up here: the first look waits for others, which a fork in its middle would leave waiting for
    // ever.
    const engine::EngineKernels& kernels = engine::engine_kernels();
    mutable engine::ThreadPool pool;
    mutable engine::CallWorkspaces workspaces;
};

Engine::Engine(const std::vector<NamedTensor>& tensors, const NetworkOptions& options, std::size_t threads)
    : implementation_(std::make_unique<const Implementation>(tensors, options, threads)) {}

Engine::~Engine() = default;

std::size_t Engine::threads() const noexcept { return implementation_->pool.max_threads(); }

const AnchorPyramid& Engine::anchors() const noexcept { return implementation_->options.anchors; }

void Engine::run(const ImageView& image, const RawLevel* levels) const {
    implementation_->run(image, levels, [](const Call&, CallWorkspace&) {});
}

double Engine::detect(const ImageView& image, const PostprocessOptions& options, Workspace& faces) const {
    const auto started = std::chrono::steady_clock::now();
    double network_seconds = 0.0;
    implementation_->run(image, nullptr, [&](const Call& call, CallWorkspace& memory) {
        network_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
        PostprocessOptions own = options;
        own.score_kind = ScoreKind::logits;
        own.variances = implementation_->options.variances;
        const float* const scores[engine::kLevels] = {call.scores[0], call.scores[1], call.scores[2]};
        postprocess(implementation_->options.anchors, image.size, scores, HeadDeltas(call, memory), own,
                    faces);
    });
    return network_seconds;
}

std::size_t available_processors() noexcept { return engine::available_processors(); }

}  // namespace retinaface
