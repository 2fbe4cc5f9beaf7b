#include "engine/workspace.hpp"

#include <algorithm>
#include <utility>

namespace retinaface::engine {

namespace {

// Calls after which memory is looked at, and how much more than needed it may be.
constexpr std::size_t kCallsBetweenLooks = 32;
constexpr std::size_t kMostTimesNeeded = 2;
constexpr std::size_t kMostFreeBytes = std::size_t{256} << 20U;

// The old memory goes before the new comes: it holds nothing that is needed.
void make_room(AlignedFloats& memory, std::size_t floats) {
    if (memory.size() >= floats) return;
    memory = AlignedFloats();
    memory = AlignedFloats(floats);
}

}  // namespace

const Plan& CallWorkspace::prepare(const PackedModel& model, ImageSize image, std::size_t threads,
                                   bool all_deltas) {
    if (!plan_ || !plan_->is_for(image, threads, all_deltas)) {
        plan_.reset();
        plan_ = std::make_unique<const Plan>(model, image, threads, all_deltas);
    }
    const std::size_t scratch = threads * plan_->scratch_floats;
    most_arena_ = std::max(most_arena_, plan_->arena_floats);
    most_scratch_ = std::max(most_scratch_, scratch);
    most_zeros_ = std::max(most_zeros_, plan_->zeros_floats);
    if (++calls_ % kCallsBetweenLooks == 0) forget_large_memory();
    make_room(arena_, plan_->arena_floats);
    make_room(scratch_, scratch);
    if (zeros_.size() < plan_->zeros_floats) {
        make_room(zeros_, plan_->zeros_floats);
        std::fill_n(zeros_.data(), zeros_.size(), 0.0F);
    }
    return *plan_;
}

float* CallWorkspace::heads(std::size_t floats) {
    make_room(heads_, floats);
    return heads_.data();
}

void CallWorkspace::forget_large_memory() noexcept {
    const auto forget = [](AlignedFloats& memory, std::size_t& most) {
        if (memory.size() > kMostTimesNeeded * most) memory = AlignedFloats();
        most = 0;
    };
    forget(arena_, most_arena_);
    forget(scratch_, most_scratch_);
    forget(zeros_, most_zeros_);
}

std::unique_ptr<CallWorkspace> CallWorkspaces::acquire() {
    std::unique_ptr<CallWorkspace> workspace = free_.take();
    if (workspace == nullptr) return std::make_unique<CallWorkspace>();
    free_bytes_.fetch_sub(workspace->bytes(), std::memory_order_relaxed);
    return workspace;
}

void CallWorkspaces::release(std::unique_ptr<CallWorkspace> workspace) noexcept {
    const std::size_t bytes = workspace->bytes();
    const std::size_t before = free_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    // One is kept whatever its size: a stream of large pictures must not pay for fresh memory each time.
    const bool fits = before == 0 || before + bytes <= kMostFreeBytes;
    if (!fits || !free_.give(workspace)) free_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
}

}  // namespace retinaface::engine
