#include "engine/thread_pool.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#include <emmintrin.h>
#elif defined(_M_ARM64)
#include <intrin.h>
#endif

namespace retinaface::engine {

namespace {

// Both outlive every thread and every static object: constant initialisation, no destructor.
std::atomic<std::uint64_t> fork_generation{0};
std::atomic<std::size_t> busy_threads{0};  // in calls, of all pools; callers and workers

#ifndef _WIN32
void forget_the_parent() noexcept {
    fork_generation.fetch_add(1, std::memory_order_relaxed);
    busy_threads.store(0, std::memory_order_relaxed);
}
// At load time and not at first use: a fork in the middle of a first use would leave its guard locked in the
// child.
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, forget_the_parent);
#endif

// Threads for one call: the caller's, always, and up to `workers` more while the process is below `limit`.
// Only a count: no memory is handed over by it, hence relaxed.
std::size_t reserve_threads(std::size_t workers, std::size_t limit) noexcept {
    std::size_t busy = busy_threads.load(std::memory_order_relaxed);
    std::size_t threads = 0;
    do {
        const std::size_t free = limit > busy ? limit - busy : 1;
        threads = 1 + std::min(workers, free - 1);
    } while (!busy_threads.compare_exchange_weak(busy, busy + threads, std::memory_order_relaxed));
    return threads;
}

void return_threads(std::size_t threads) noexcept {
    busy_threads.fetch_sub(threads, std::memory_order_relaxed);
}

// Pauses before a thread sleeps: about as long as waking it up takes (some 6 us). Spinning for longer takes
// the processor from those who have work as soon as the machine is shared.
constexpr int kPauses = 300;

void relax_processor() noexcept {
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
    _mm_pause();
#elif defined(_M_ARM64)
    __isb(_ARM64_BARRIER_SY);
#elif defined(__aarch64__)
    // `yield` does nothing on most cores; `isb` takes about as long as a pause of x86.
    __asm__ volatile("isb" ::: "memory");
#elif defined(__arm__) && !defined(__thumb__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

// What is left of a phase, in one word: how many threads the team has (16 bits, so that a worker that is not
// in it can tell) and how many tasks nobody has begun (48 bits).
constexpr unsigned kLeftBits = 48;
constexpr std::uint64_t kLeftMask = (std::uint64_t{1} << kLeftBits) - 1;
constexpr std::size_t kMostThreads = 0xFFFF;

constexpr bool has_task(std::uint64_t ticket, std::size_t thread) noexcept {
    return (ticket & kLeftMask) != 0 && thread < ticket >> kLeftBits;
}

// Keeps what different threads write on different cache lines. (Two lines: CPUs fetch
// them in pairs.)
struct Gap {
    char unused[128];
};

}  // namespace

// How a phase runs, and why no worker can be too late:
//
// The caller writes `job`, then `ticket`. Whoever wants a task decrements the count in the ticket by compare
// and swap; success makes it the owner of one task of the phase that is current *at that moment*, and this
// phase cannot end before the owner has counted up `finished`. So it reads `job` only now, after the swap,
// and finds the one of its task. From before the swap it uses nothing but the ticket, which the swap has just
// confirmed; a ticket that was read long ago and happens to have the same value again is therefore as good as
// a fresh one, and there is no phase number that could wrap. A late worker finds no task, or one of a newer
// phase of a team that it belongs to.
//
// Order of memory: the swap acquires, and reads a value of the release sequence that the caller's store of
// the ticket heads, so `job` and all that was done before are visible. `finished` goes the other way (release
// by the worker, acquire by the caller), so the caller may overwrite `job`, reset `finished` and free the
// context.
struct ThreadPool::State {
    struct Worker {
        std::thread thread;
        std::mutex mutex;
        std::condition_variable wake;
        std::atomic<bool> asleep{false};  // set by the worker, cleared by who wakes it; both under `mutex`
        Gap gap;
    };
    struct Job {
        Task task;
        void* context;
        std::size_t phase;
        std::size_t count;
    };

    explicit State(std::size_t workers_)
        : generation(fork_generation.load(std::memory_order_relaxed)), workers(workers_) {}

    ~State() {
        stop.store(true, std::memory_order_seq_cst);
        for (std::size_t i = 0; i < started; ++i) wake(workers[i]);
        for (std::size_t i = 0; i < started; ++i) workers[i].thread.join();
    }

    State(const State&) = delete;
    State& operator=(const State&) = delete;

    // In a child after a fork: the threads are gone, and nothing but `generation` may be looked at.
    [[nodiscard]] bool abandoned() const noexcept {
        return generation != fork_generation.load(std::memory_order_relaxed);
    }

    // Sees to it that up to `wanted` workers run, and returns how many of them do. For the owner of `taken`.
    std::size_t start(std::size_t wanted) noexcept {
        try {
            for (; started < wanted; ++started) {
                workers[started].thread = std::thread(&State::work, this, started + 1);
            }
        } catch (const std::exception&) {
            return started;  // no thread or no memory for it: the call has fewer threads
        }
        return std::min(wanted, started);
    }

    static void wake(Worker& worker) noexcept {
        {
            const std::lock_guard<std::mutex> lock(worker.mutex);
            worker.asleep.store(false, std::memory_order_relaxed);
        }
        worker.wake.notify_one();
    }

    // Takes a task of the current phase; 0 is none, else how many were left, this one counted.
    std::uint64_t take(std::size_t thread) noexcept {
        std::uint64_t now = ticket.load(std::memory_order_relaxed);
        while (has_task(now, thread)) {
            if (ticket.compare_exchange_weak(now, now - 1, std::memory_order_acquire,
                                             std::memory_order_relaxed)) {
                return now & kLeftMask;
            }
        }
        return 0;
    }

    void do_task(std::uint64_t left, std::size_t thread) noexcept {
        job.task(job.context, job.phase, job.count - static_cast<std::size_t>(left), thread);
    }

    void work(std::size_t thread) noexcept {
        int pauses = 0;
        while (!stop.load(std::memory_order_relaxed)) {
            if (const std::uint64_t left = take(thread); left != 0) {
                do_task(left, thread);
                // From -1: the caller sleeps and this was the last task. The caller may go on as soon as the
                // count is up; what follows touches only what lives until this thread is joined.
                if (finished.fetch_add(1, std::memory_order_acq_rel) == -1) {
                    {
                        const std::lock_guard<std::mutex> lock(caller_mutex);
                    }
                    caller_wake.notify_one();
                }
                pauses = 0;
            } else if (pauses < kPauses) {
                ++pauses;
                relax_processor();
            } else {
                sleep(workers[thread - 1], thread);
                pauses = 0;
            }
        }
    }

    // Either this thread sees the new ticket (or `stop`), or who wrote it sees `asleep`: all four accesses
    // are sequentially consistent. `stop` does not even need that, its writer always takes the mutex.
    void sleep(Worker& worker, std::size_t thread) noexcept {
        std::unique_lock<std::mutex> lock(worker.mutex);
        worker.asleep.store(true, std::memory_order_seq_cst);
        if (has_task(ticket.load(std::memory_order_seq_cst), thread) ||
            stop.load(std::memory_order_seq_cst)) {
            worker.asleep.store(false, std::memory_order_relaxed);
            return;
        }
        worker.wake.wait(lock, [&worker] { return !worker.asleep.load(std::memory_order_relaxed); });
    }

    void run_phase(const Job& next, std::size_t threads) noexcept {
        job = next;
        finished.store(0, std::memory_order_relaxed);
        ticket.store(std::uint64_t{threads} << kLeftBits | next.count, std::memory_order_seq_cst);
        // A worker that was woken and has not run yet is not asleep: it costs one system call, not one a
        // phase.
        const std::size_t useful = std::min(threads, next.count) - 1;
        for (std::size_t i = 0; i < useful; ++i) {
            if (workers[i].asleep.load(std::memory_order_seq_cst)) wake(workers[i]);
        }
        std::size_t own = 0;
        for (std::uint64_t left = take(0); left != 0; left = take(0)) {
            do_task(left, 0);
            ++own;
        }
        wait_for(static_cast<std::int64_t>(next.count - own));
    }

    // Until the workers have finished the tasks that they have begun, which are all that are not the caller's
    // own.
    void wait_for(std::int64_t begun) noexcept {
        for (int pauses = 0; pauses < kPauses; ++pauses) {
            if (finished.load(std::memory_order_acquire) == begun) return;
            relax_processor();
        }
        // From here the count goes up to 0, and who brings it there wakes the caller. One atomic word decides
        // between the two, so neither can miss the other.
        if (finished.fetch_sub(begun, std::memory_order_acq_rel) == begun) return;
        std::unique_lock<std::mutex> lock(caller_mutex);
        caller_wake.wait(lock, [this] { return finished.load(std::memory_order_acquire) == 0; });
    }

    const std::uint64_t generation;
    std::atomic<bool> taken{false};  // by a team
    std::atomic<bool> stop{false};
    std::size_t started = 0;  // belongs to the owner of `taken`, like `job`
    std::vector<Worker> workers;
    std::mutex caller_mutex;
    std::condition_variable caller_wake;
    Job job{};
    Gap before_ticket;
    std::atomic<std::uint64_t> ticket{0};
    Gap before_finished;
    std::atomic<std::int64_t> finished{
        0};  // tasks of this phase by workers; less `begun` when the caller sleeps
    Gap after_finished;
};

ThreadPool::ThreadPool(std::size_t max_threads)
    : max_threads_(std::clamp<std::size_t>(max_threads, 1, kMostThreads)),
      busy_limit_(std::max(available_processors(), max_threads_)),
      state_(std::make_unique<State>(max_threads_ - 1).release()) {}

ThreadPool::~ThreadPool() {
    State* const state = state_.load(std::memory_order_acquire);
    if (!state->abandoned()) std::unique_ptr<State>(state).reset();
}

std::size_t ThreadPool::max_threads() const noexcept { return max_threads_; }

ThreadPool::State& ThreadPool::state() {
    State* current = state_.load(std::memory_order_acquire);
    if (current->abandoned()) {
        auto fresh = std::make_unique<State>(max_threads_ - 1);
        if (state_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel)) {
            current = fresh.release();
        }
    }
    return *current;
}

ThreadPool::Team::Team(ThreadPool& pool, std::size_t most_threads) : state_(&pool.state()), threads_(1) {
    const std::size_t most = std::clamp<std::size_t>(most_threads, 1, pool.max_threads_);
    const bool owner = most > 1 && !state_->taken.exchange(true, std::memory_order_acquire);
    const std::size_t reserved = reserve_threads(owner ? most - 1 : 0, pool.busy_limit_);
    if (owner) {
        threads_ = 1 + state_->start(reserved - 1);
        return_threads(reserved - threads_);
        // A team of one does not own the workers.
        if (threads_ == 1) state_->taken.store(false, std::memory_order_release);
    }
}

ThreadPool::Team::~Team() {
    if (state_->abandoned()) return;  // a team from before a fork: the child has begun to count anew
    if (threads_ > 1) state_->taken.store(false, std::memory_order_release);
    return_threads(threads_);
}

std::size_t ThreadPool::Team::threads() const noexcept { return threads_; }

void ThreadPool::Team::run(const std::size_t* task_counts, std::size_t phases, Task task,
                           void* context) noexcept {
    const bool alone = threads_ == 1 || state_->abandoned();
    for (std::size_t phase = 0; phase < phases; ++phase) {
        const std::size_t count = task_counts[phase];
        if (alone || count <= 1) {
            for (std::size_t i = 0; i < count; ++i) task(context, phase, i, 0);
        } else {
            state_->run_phase({task, context, phase, count}, threads_);
        }
    }
}

}  // namespace retinaface::engine
