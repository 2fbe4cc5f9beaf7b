// The threads of an engine.
//
// A call takes a Team and runs phases of tasks with it: the tasks of a phase in any order on any thread, a phase
// after the whole of the one before. The caller works too and waits only for tasks that another thread has begun, so
// a worker that the system does not let run costs nothing.
#pragma once

#include <cstddef>
#include <memory>

namespace retinaface::engine {

class ThreadPool {
  public:
    // At most `max_threads` threads (at least 1), the caller's among them, work on one call. The others start
    // at the first call that can use them.
    explicit ThreadPool(std::size_t max_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    [[nodiscard]] std::size_t max_threads() const noexcept;

    // One task: `thread` < Team::threads() names the thread, 0 is the caller. Must not throw.
    using Task = void (*)(void* context, std::size_t phase, std::size_t task, std::size_t thread) noexcept;

    class Team {
      public:
        // Takes what is free now, without waiting: the workers, unless another call has them; and of those no
        // more than the process has processors that no call of any pool is using. At least the caller.
        explicit Team(ThreadPool& pool);
        ~Team();
        Team(const Team&) = delete;
        Team& operator=(const Team&) = delete;

        [[nodiscard]] std::size_t threads() const noexcept;

        // Runs task_counts[p] tasks for each phase p < phases. Nothing of `context` is touched after it returns.
        void run(const std::size_t* task_counts, std::size_t phases, Task task, void* context) noexcept;

      private:
        ThreadPool& pool_;
        std::size_t threads_;
    };

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// Processors that this process may use: its affinity mask and, on Linux, the quota of its control group.
[[nodiscard]] std::size_t available_processors() noexcept;

}  // namespace retinaface::engine
