// The memory of one call at a time, kept between calls.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "engine/aligned.hpp"
#include "engine/plan.hpp"

namespace retinaface::engine {

class CallWorkspace {
  public:
    // Makes the plan unless it is that of the last call, and room for it. Throws std::bad_alloc.
    const Plan& prepare(const PackedModel& model, ImageSize image, std::size_t threads, bool all_deltas);

    [[nodiscard]] const std::vector<std::size_t>& task_counts() const noexcept { return task_counts_; }
    [[nodiscard]] float* arena() const noexcept { return arena_.data(); }
    [[nodiscard]] float* scratch() const noexcept { return scratch_.data(); }
    [[nodiscard]] const float* zeros() const noexcept { return zeros_.data(); }
    // Memory beside all that, for the heads of single cells. Throws std::bad_alloc.
    [[nodiscard]] float* heads(std::size_t floats);
    [[nodiscard]] std::size_t bytes() const noexcept {
        return (arena_.size() + scratch_.size() + zeros_.size()) * sizeof(float);
    }

  private:
    void forget_large_memory() noexcept;

    std::optional<Plan> plan_;
    std::vector<std::size_t> task_counts_;
    AlignedFloats arena_;
    AlignedFloats scratch_;
    AlignedFloats zeros_;
    AlignedFloats heads_;
    // The most that a call of the last ones needed: memory that only a single large picture needed goes back.
    std::size_t calls_ = 0;
    std::size_t most_arena_ = 0;
};

// A call takes the workspace that was given back last. Those that nobody uses together hold no more than a
// bound.
class CallWorkspaces {
  public:
    // A workspace for as long as this lives.
    class Lease {
      public:
        explicit Lease(CallWorkspaces& workspaces)
            : workspaces_(workspaces), workspace_(workspaces.acquire()) {}
        ~Lease() { workspaces_.release(std::move(workspace_)); }
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        [[nodiscard]] CallWorkspace& operator*() const noexcept { return *workspace_; }
        [[nodiscard]] CallWorkspace* operator->() const noexcept { return workspace_.get(); }

      private:
        CallWorkspaces& workspaces_;
        std::unique_ptr<CallWorkspace> workspace_;
    };

    CallWorkspaces() { free_.reserve(kMost); }

  private:
    [[nodiscard]] std::unique_ptr<CallWorkspace> acquire();
    void release(std::unique_ptr<CallWorkspace> workspace) noexcept;

    static constexpr std::size_t kMost = 64;
    std::mutex mutex_;
    std::vector<std::unique_ptr<CallWorkspace>> free_;
    std::size_t free_bytes_ = 0;
};

}  // namespace retinaface::engine
