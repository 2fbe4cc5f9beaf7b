// The memory of one call at a time, kept between calls.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

#include "engine/aligned.hpp"
#include "engine/plan.hpp"
#include "retinaface/slot_pool.hpp"

namespace retinaface::engine {

class CallWorkspace {
  public:
    // Makes the plan unless it is that of the last call, and room for it. Throws std::bad_alloc.
    const Plan& prepare(const PackedModel& model, ImageSize image, std::size_t threads, bool all_deltas);

    [[nodiscard]] float* arena() const noexcept { return arena_.data(); }
    [[nodiscard]] float* scratch() const noexcept { return scratch_.data(); }
    [[nodiscard]] const float* zeros() const noexcept { return zeros_.data(); }
    // Memory beside all that, for the heads of single cells. Throws std::bad_alloc.
    [[nodiscard]] float* heads(std::size_t floats);
    [[nodiscard]] std::size_t bytes() const noexcept {
        return (arena_.size() + scratch_.size() + zeros_.size() + heads_.size()) * sizeof(float);
    }

  private:
    void forget_large_memory() noexcept;

    std::unique_ptr<const Plan> plan_;
    AlignedFloats arena_;
    AlignedFloats scratch_;
    AlignedFloats zeros_;
    AlignedFloats heads_;
    // The most that a call of the last ones needed: memory that only a single large picture needed goes back.
    std::size_t calls_ = 0;
    std::size_t most_arena_ = 0;
    std::size_t most_scratch_ = 0;
    std::size_t most_zeros_ = 0;
};

// The workspaces of the calls of one engine. Those that nobody uses together hold no more than a
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

  private:
    [[nodiscard]] std::unique_ptr<CallWorkspace> acquire();
    void release(std::unique_ptr<CallWorkspace> workspace) noexcept;

    SlotPool<CallWorkspace, 64> free_;
    std::atomic<std::size_t> free_bytes_{0};
};

}  // namespace retinaface::engine
