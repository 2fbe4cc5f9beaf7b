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
        plan_.emplace(model, image, threads, all_deltas);
        task_counts_.clear();
        for (const std::vector<Task>& tasks : plan_->phases) task_counts_.push_back(tasks.size());
    }
    most_arena_ = std::max(most_arena_, plan_->arena_floats);
    if (++calls_ % kCallsBetweenLooks == 0) forget_large_memory();
    make_room(arena_, plan_->arena_floats);
    make_room(scratch_, threads * plan_->scratch_floats);
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
    if (arena_.size() > kMostTimesNeeded * most_arena_) arena_ = AlignedFloats();
    most_arena_ = 0;
}

std::unique_ptr<CallWorkspace> CallWorkspaces::acquire() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!free_.empty()) {
            std::unique_ptr<CallWorkspace> workspace = std::move(free_.back());
            free_.pop_back();
            free_bytes_ -= workspace->bytes();
            return workspace;
        }
    }
    return std::make_unique<CallWorkspace>();
}

void CallWorkspaces::release(std::unique_ptr<CallWorkspace> workspace) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    // One is always kept, whatever its size: a stream of large pictures must not pay for fresh memory each
    // time.
    const bool fits = free_.empty() || free_bytes_ + workspace->bytes() <= kMostFreeBytes;
    if (free_.size() == kMost || !fits) return;
    free_bytes_ += workspace->bytes();
    free_.push_back(std::move(workspace));
}

}  // namespace retinaface::engine
