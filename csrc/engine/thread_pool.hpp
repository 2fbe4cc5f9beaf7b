// The threads of an engine.
//
// A call takes a Team and runs phases of tasks with it: the tasks of a phase in any order on any thread, a
// phase after the whole of the one before. The caller works too and waits only for tasks that another thread
// has begun, so a worker that the system does not let run costs nothing.
#pragma once

#include <atomic>
#include <cstddef>

namespace retinaface::engine {

class ThreadPool {
    struct State;

  public:
    // At most `max_threads` threads (at least 1, at most 65535; other values are moved into that range), the
    // caller's among them, work on one call. The others start at the first call that can use them; where the
    // system refuses a thread, calls have fewer and the next one asks again.
    //
    // After a fork the child has a pool like a new one. What the parent's pool held stays as it was at the
    // fork and is never freed: its threads do not exist there and its locks may be held by nobody.
    explicit ThreadPool(std::size_t max_threads);
    // No call may be running. Stops and joins the workers.
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    [[nodiscard]] std::size_t max_threads() const noexcept;

    // One task: `thread` < Team::threads() names the thread, 0 is the caller. Must not throw, and must not
    // fork (a child would wait for tasks of threads that it does not have).
    using Task = void (*)(void* context, std::size_t phase, std::size_t task, std::size_t thread) noexcept;

    class Team {
      public:
        // Takes what is free now, without waiting: the workers, unless another call has them; and of those no
        // more than the process has processors that no call of any pool is using. At
        // least the caller, and at most `most_threads`.
        explicit Team(ThreadPool& pool, std::size_t most_threads = static_cast<std::size_t>(-1));
        ~Team();
        Team(const Team&) = delete;
        Team& operator=(const Team&) = delete;

        [[nodiscard]] std::size_t threads() const noexcept;

        // Runs task_counts[p] (< 2^48) tasks for each phase p < phases. What a task writes is seen by every
        // task of the phases after it and by the caller afterwards. Nothing of `context` is touched after it
        // returns. For the thread that made the team, one run at a time.
        void run(const std::size_t* task_counts, std::size_t phases, Task task, void* context) noexcept;

      private:
        State* state_;
        std::size_t threads_;
    };

  private:
    [[nodiscard]] State& state();

    std::size_t max_threads_;
    // Most threads in calls of all pools together at which a call of this pool still takes one more.
    std::size_t busy_limit_;
    // Replaced in a child after a fork, by whichever of its threads comes first.
    std::atomic<State*> state_;
};

// Processors that this process may use, at least 1: on Linux its affinity mask and the processor quota of its
// control groups, elsewhere what the standard library says. Reads a few files: not for every call.
[[nodiscard]] std::size_t available_processors() noexcept;

}  // namespace retinaface::engine
