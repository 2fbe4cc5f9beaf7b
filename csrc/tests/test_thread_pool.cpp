#include "engine/thread_pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "check.hpp"

#ifndef _WIN32
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#if defined(__has_feature)
#define HAS_FEATURE(name) __has_feature(name)
#else
#define HAS_FEATURE(name) 0
#endif
// The thread sanitizer cannot follow threads that start in a child after a fork.
#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__) && !HAS_FEATURE(thread_sanitizer)
#define TEST_FORK
#endif
// The address sanitizer of older compilers leaves the locks of its own allocator as they are when a process
// forks, and ends a process that cannot map memory.
#if defined(TEST_FORK) && !defined(__SANITIZE_ADDRESS__) && !HAS_FEATURE(address_sanitizer)
#define TEST_FORK_WITH_SYSTEM_ALLOCATOR
#endif

namespace {

using namespace retinaface::engine;
using Clock = std::chrono::steady_clock;

// Some work that a compiler cannot remove.
void work_for(int rounds) noexcept {
    unsigned state = 1;
    for (int i = 0; i < rounds; ++i) state = state * 1664525U + 1013904223U;
    const volatile unsigned sink = state;
    static_cast<void>(sink);
}

// One run and a record of it. The records are not atomic on purpose: that each of them has one writer, and
// that the next phase sees what this one wrote, is what the pool promises and what a thread sanitizer then
// checks.
class Run {
  public:
    explicit Run(std::vector<std::size_t> counts, int rounds = 0)
        : counts_(std::move(counts)), rounds_(rounds) {
        for (const std::size_t count : counts_) first_.push_back(first_.back() + count);
        times_.resize(first_.back());
    }

    // Whether everything held that a pool promises.
    bool with(ThreadPool::Team& team) {
        std::fill(times_.begin(), times_.end(), 0);
        threads_ = team.threads();
        std::vector<std::atomic<bool>> busy(threads_);
        busy_ = busy.data();
        caller_ = std::this_thread::get_id();
        tasks_of_thread_.assign(threads_, 0);
        wrong_ = false;
        team.run(counts_.data(), counts_.size(), &Run::task, this);
        std::size_t total = 0;
        for (const std::size_t tasks : tasks_of_thread_) total += tasks;
        return !wrong_ && total == times_.size() &&
               std::all_of(times_.begin(), times_.end(), [](int times) { return times == 1; });
    }

    bool with(ThreadPool& pool) {
        ThreadPool::Team team(pool);
        return with(team);
    }

  private:
    static void task(void* context, std::size_t phase, std::size_t task, std::size_t thread) noexcept {
        static_cast<Run*>(context)->record(phase, task, thread);
    }

    void record(std::size_t phase, std::size_t task, std::size_t thread) noexcept {
        if (phase >= counts_.size() || task >= counts_[phase] || thread >= threads_) {
            wrong_ = true;
            return;
        }
        if (busy_[thread].exchange(true)) wrong_ = true;
        if ((thread == 0) != (std::this_thread::get_id() == caller_)) wrong_ = true;
        ++times_[first_[phase] + task];
        ++tasks_of_thread_[thread];
        // Some task of the phase before, whose writer need not be this thread, has been run by now, and no
        // task of the one after.
        if (phase > 0 && counts_[phase - 1] > 0 &&
            times_[first_[phase - 1] + task % counts_[phase - 1]] != 1) {
            wrong_ = true;
        }
        if (phase + 1 < counts_.size() && counts_[phase + 1] > 0) {
            if (times_[first_[phase + 1] + task % counts_[phase + 1]] != 0) wrong_ = true;
        }
        if (rounds_ > 0) work_for(rounds_ + static_cast<int>(task % 3) * rounds_);
        busy_[thread].store(false);
    }

    std::vector<std::size_t> counts_;
    int rounds_;
    std::vector<std::size_t> first_{0};
    std::vector<int> times_;
    std::vector<std::size_t> tasks_of_thread_;
    std::atomic<bool>* busy_ = nullptr;
    std::size_t threads_ = 0;
    std::thread::id caller_;
    std::atomic<bool> wrong_{false};
};

std::vector<std::size_t> random_counts(check::Random& random, std::size_t phases, std::size_t most) {
    std::vector<std::size_t> counts(phases);
    for (std::size_t& count : counts) {
        // Often none, one, or as many as threads.
        count = random() % 3 == 0 ? random() % 4 : random() % (most + 1);
    }
    return counts;
}

void every_task_once_and_phases_in_order() {
    check::Random random(1);
    for (const std::size_t threads : {1U, 2U, 3U, 8U}) {
        ThreadPool pool(threads);
        CHECK(pool.max_threads() == threads);
        ThreadPool::Team team(pool);
        CHECK(team.threads() == threads);
        CHECK(Run(random_counts(random, 10000, 40)).with(team));
        for (int call = 0; call < 20; ++call) CHECK(Run(random_counts(random, 20, 200), 200).with(team));
    }
}

void empty_and_large_phases() {
    ThreadPool pool(4);
    CHECK(Run({}).with(pool));
    CHECK(Run({0}).with(pool));
    CHECK(Run({0, 0, 0, 1, 0, 2, 0}).with(pool));
    CHECK(Run({1, 1, 1}).with(pool));
    CHECK(Run({std::size_t{1} << 20U, 3, (std::size_t{1} << 20U) + 1}).with(pool));
    ThreadPool::Team team(pool);
    team.run(nullptr, 0, nullptr, nullptr);
    const std::size_t none[] = {0, 0};
    team.run(none, 2, nullptr, nullptr);
}

void limits_of_the_number_of_threads() {
    CHECK(ThreadPool(0).max_threads() == 1);
    CHECK(ThreadPool(1).max_threads() == 1);
    // No thread starts before a team asks for it.
    CHECK(ThreadPool(1000000).max_threads() == 65535);
}

// The tasks of a phase really run side by side: each waits for all others.
struct Meeting {
    std::atomic<std::size_t> here{0};
    std::size_t expected = 0;
    static void task(void* context, std::size_t, std::size_t, std::size_t) noexcept {
        auto& meeting = *static_cast<Meeting*>(context);
        ++meeting.here;
        while (meeting.here.load() < meeting.expected) std::this_thread::yield();
    }
};

bool all_threads_meet(ThreadPool& pool, std::size_t expected) {
    ThreadPool::Team team(pool);
    if (team.threads() != expected) return false;
    Meeting meeting;
    meeting.expected = expected;
    team.run(&expected, 1, &Meeting::task, &meeting);
    return meeting.here == expected;
}

void all_threads_work() {
    for (const std::size_t threads : {1U, 2U, 5U}) {
        ThreadPool pool(threads);
        for (int call = 0; call < 50; ++call) CHECK(all_threads_meet(pool, threads));
        // From sleep, too.
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        CHECK(all_threads_meet(pool, threads));
    }
}

void one_call_has_the_workers() {
    const std::size_t threads = available_processors() + 1;
    ThreadPool first(threads), second(threads);
    {
        const ThreadPool::Team team(first);
        CHECK(team.threads() == threads);
        ThreadPool::Team same_pool(first);
        CHECK(same_pool.threads() == 1);
        CHECK(Run({5, 6, 7}).with(same_pool));
        ThreadPool::Team other_pool(second);
        CHECK(other_pool.threads() == 1);
        CHECK(Run({5, 6, 7}).with(other_pool));
    }
    CHECK(ThreadPool::Team(second).threads() == threads);
    {
        // Two calls that are alone take two of the processors.
        ThreadPool single(1);
        const ThreadPool::Team one(single), two(single);
        CHECK(ThreadPool::Team(first).threads() == (threads > 2 ? threads - 2 : 1));
    }
    {
        // The workers stay with one call even while there are processors for another one's.
        const std::size_t most = threads + 2;
        ThreadPool pool(most), single(1);
        std::optional<ThreadPool::Team> alone(std::in_place, single), alone_too(std::in_place, single);
        const ThreadPool::Team owner(pool);
        CHECK(owner.threads() == most - 2);
        alone.reset();
        alone_too.reset();
        CHECK(ThreadPool::Team(pool).threads() == 1);
    }
    CHECK(ThreadPool::Team(first).threads() == threads);
}

// A team within a task of another one takes what is left, and finishes.
void nested() {
    ThreadPool pool(3);
    ThreadPool::Team team(pool);
    const std::size_t count = 30;
    struct Context {
        ThreadPool& pool;
        std::atomic<std::size_t> right{0};
    } context{pool};
    team.run(
        &count, 1,
        [](void* raw, std::size_t, std::size_t, std::size_t) noexcept {
            auto& outer = *static_cast<Context*>(raw);
            if (Run({3, 0, 4}).with(outer.pool)) ++outer.right;
        },
        &context);
    CHECK(context.right == count);
}

// Threads in tasks at any moment, over all calls of all pools.
std::atomic<int> in_tasks{0};
std::atomic<int> most_in_tasks{0};

void many_callers_of_two_pools() {
    const std::size_t threads = std::max<std::size_t>(available_processors(), 3);
    ThreadPool pools[2]{ThreadPool(threads), ThreadPool(threads)};
    const std::size_t callers = 6;
    std::atomic<int> wrong{0};
    std::atomic<std::size_t> teams{0};
    std::vector<std::thread> all;
    for (std::size_t caller = 0; caller < callers; ++caller) {
        all.emplace_back([&, caller] {
            check::Random random(caller);
            for (int call = 0; call < 100; ++call) {
                if (!Run(random_counts(random, 20, 30), 30).with(pools[random() % 2])) ++wrong;
                ThreadPool::Team team(pools[random() % 2]);
                if (team.threads() > 1) ++teams;
                const std::size_t counts[] = {7, 9};
                team.run(
                    counts, 2,
                    [](void*, std::size_t, std::size_t, std::size_t) noexcept {
                        const int now = ++in_tasks;
                        int most = most_in_tasks.load();
                        while (now > most && !most_in_tasks.compare_exchange_weak(most, now)) continue;
                        work_for(200);
                        --in_tasks;
                    },
                    nullptr);
            }
        });
    }
    for (std::thread& thread : all) thread.join();
    CHECK(wrong == 0);
    CHECK(teams > 0);
    CHECK(in_tasks == 0);
    // A caller always runs; beyond those, no more than the limit.
    CHECK(most_in_tasks <= static_cast<int>(threads + callers - 1));
    // Nothing has leaked from the count: all threads are to be had again.
    for (ThreadPool& pool : pools) CHECK(all_threads_meet(pool, threads));
}

// A worker that got its task late must find the context of that task: every call has its own, gone
// afterwards.
void contexts_that_die() {
    ThreadPool pool(4);
    for (int call = 0; call < 5000; ++call) {
        const auto run =
            std::make_unique<Run>(std::vector<std::size_t>{2, 3, static_cast<std::size_t>(call % 7)});
        const bool right = run->with(pool);
        CHECK(right);
        // Sometimes the workers are still spinning at the next call, sometimes asleep, sometimes between the
        // two.
        if (call % 5 == 0) std::this_thread::sleep_for(std::chrono::microseconds(call % 100));
    }
}

void creation_and_destruction() {
    for (int i = 0; i < 300; ++i) {
        ThreadPool pool(4);
        if (i % 3 == 0) continue;
        CHECK(Run({8, 8}).with(pool));
        if (i % 30 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    const auto pool = std::make_unique<ThreadPool>(8);
    CHECK(Run({100}).with(*pool));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

void more_busy_threads_than_processors() {
    std::atomic<bool> stop{false};
    std::vector<std::thread> others;
    for (std::size_t i = 0; i < 2 * available_processors(); ++i) {
        others.emplace_back([&stop] {
            while (!stop.load()) work_for(1000);
        });
    }
    check::Random random(5);
    ThreadPool pool(6);
    for (int call = 0; call < 30; ++call) CHECK(Run(random_counts(random, 20, 20), 500).with(pool));
    stop = true;
    for (std::thread& thread : others) thread.join();
}

#ifndef _WIN32

double processor_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

void workers_sleep_between_calls() {
    ThreadPool pool(4);
    CHECK(all_threads_meet(pool, 4));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const double before = processor_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    CHECK(processor_seconds() - before < 0.1);
}

#endif

#ifdef TEST_FORK

// Runs `test` in a child; true when it says so within 30 seconds.
template <typename Function>
bool in_child(Function test) {
    const pid_t child = fork();
    if (child == 0) _exit(test() ? 0 : 1);
    const auto until = Clock::now() + std::chrono::seconds(30);
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (Clock::now() > until) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void fork_between_calls() {
    auto pool = std::make_unique<ThreadPool>(3);
    const auto unused = std::make_unique<ThreadPool>(3);
    CHECK(all_threads_meet(*pool, 3));
    const auto child = [&] {
        bool right = all_threads_meet(*pool, 3) && Run({30, 40}, 100).with(*pool);
        right = right && all_threads_meet(*unused, 3);
        // And in a child of the child, which has no pool of its own generation either.
        right = right && in_child([&] {
                    const bool met = all_threads_meet(*pool, 3);
                    pool.reset();
                    return met;
                });
        pool.reset();
        return right;
    };
    CHECK(in_child(child));
    // One that only destroys what it cannot join.
    CHECK(in_child([&] {
        pool.reset();
        return true;
    }));
    CHECK(all_threads_meet(*pool, 3));
}

// Two threads of the child at once: one of them makes the new state, both use it.
void fork_and_many_threads_in_the_child() {
    ThreadPool pool(3);
    CHECK(all_threads_meet(pool, 3));
    for (int i = 0; i < 20; ++i) {
        CHECK(in_child([&] {
            std::atomic<int> right{0};
            std::vector<std::thread> all;
            for (int caller = 0; caller < 4; ++caller) {
                all.emplace_back([&] { right += Run({9, 8, 7}).with(pool) ? 1 : 0; });
            }
            for (std::thread& thread : all) thread.join();
            return right == 4 && all_threads_meet(pool, 3);
        }));
    }
}

#ifdef TEST_FORK_WITH_SYSTEM_ALLOCATOR
void wait_until(const std::atomic<bool>& flag) {
    while (!flag.load()) std::this_thread::yield();
}

// At any point of a call of another thread: whatever it held, and whatever it had counted as busy, is
// nobody's.
void fork_during_a_call_of_another_thread() {
    const std::size_t threads = available_processors() + 1;
    ThreadPool pool(threads);
    std::atomic<bool> stop{false}, running{false};
    std::atomic<int> wrong{0};
    std::thread caller([&] {
        check::Random random(3);
        while (!stop.load()) {
            if (!Run(random_counts(random, 20, 10), 20).with(pool)) ++wrong;
            running = true;
        }
    });
    wait_until(running);
    for (int i = 0; i < 60; ++i) {
        CHECK(in_child([&] { return all_threads_meet(pool, threads) && Run({50, 0, 50}).with(pool); }));
    }
    stop = true;
    caller.join();
    CHECK(wrong == 0);
}

#endif

// A team from before the fork has no workers in the child. The child runs alone with it, may end it, and has
// new ones.
void fork_with_a_team() {
    ThreadPool pool(3);
    std::optional<ThreadPool::Team> team(std::in_place, pool);
    CHECK(team->threads() == 3);
    CHECK(in_child([&] {
        const bool right = Run({20, 1, 20}).with(*team) && all_threads_meet(pool, 3);
        team.reset();
        return right && all_threads_meet(pool, 3);
    }));
    CHECK(Run({20, 1, 20}).with(*team));
    team.reset();
    CHECK(all_threads_meet(pool, 3));
}

#ifdef TEST_FORK_WITH_SYSTEM_ALLOCATOR
// The system refuses threads: calls run on fewer, and get the rest once it no longer does.
void threads_refused() {
    CHECK(in_child([] {
        // The C library keeps a few stacks of threads that have ended, so some may start.
        const std::size_t wanted = 64;
        ThreadPool pool(wanted);
        Run run({50, 50, 50});
        rlimit memory{};
        getrlimit(RLIMIT_AS, &memory);
        const rlimit none{1, memory.rlim_max};
        setrlimit(RLIMIT_AS, &none);
        bool right = false;
        {
            ThreadPool::Team team(pool);
            const std::size_t counts[] = {50, 50};
            right = team.threads() < wanted;
            team.run(counts, 2, [](void*, std::size_t, std::size_t, std::size_t) noexcept {}, nullptr);
        }
        setrlimit(RLIMIT_AS, &memory);
        return right && run.with(pool) && all_threads_meet(pool, wanted);
    }));
}

#endif

#endif

void nothing(void*, std::size_t, std::size_t, std::size_t) noexcept {}
void short_task(void*, std::size_t, std::size_t, std::size_t) noexcept { work_for(25000); }

// Not a test: what a phase costs, in microseconds. Run with `bench [threads]`, on an idle machine and on a
// busy one.
void bench(std::size_t threads) {
    ThreadPool pool(threads);
    const std::vector<std::size_t> counts(20, 8);
    const auto measure = [&](ThreadPool& of, ThreadPool::Task task, int pause_us) {
        std::vector<double> us;
        for (int call = 0; call < 300; ++call) {
            if (pause_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
            const auto start = Clock::now();
            ThreadPool::Team team(of);
            team.run(counts.data(), counts.size(), task, nullptr);
            us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count() / 20);
        }
        std::sort(us.begin(), us.end());
        std::printf("  median %8.3f  p95 %8.3f  mean %8.3f\n", us[150], us[285], [&] {
            double sum = 0;
            for (const double value : us) sum += value;
            return sum / static_cast<double>(us.size());
        }());
    };
    ThreadPool single(1);
    std::printf("us per phase of 8 tasks, %zu threads, 20 phases a call\nempty, back to back:", threads);
    measure(pool, nothing, 0);
    std::printf("empty, workers asleep before each call:");
    measure(pool, nothing, 2000);
    std::printf("8 tasks of work, one thread:");
    measure(single, short_task, 1000);
    std::printf("8 tasks of work, the pool:");
    measure(pool, short_task, 1000);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1 && std::strcmp(argv[1], "bench") == 0) {
        bench(argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 2);
        return 0;
    }
    for (void (*const test)() : {
             every_task_once_and_phases_in_order,
             empty_and_large_phases,
             limits_of_the_number_of_threads,
             all_threads_work,
             one_call_has_the_workers,
             nested,
             many_callers_of_two_pools,
             contexts_that_die,
             creation_and_destruction,
             more_busy_threads_than_processors,
#ifndef _WIN32
             workers_sleep_between_calls,
#endif
#ifdef TEST_FORK
             fork_between_calls,
             fork_and_many_threads_in_the_child,
             fork_with_a_team,
#endif
#ifdef TEST_FORK_WITH_SYSTEM_ALLOCATOR
             fork_during_a_call_of_another_thread,
             threads_refused,
#endif
         }) {
        const auto start = Clock::now();
        test();
        if (std::getenv("RETINAFACE_TEST_TIMES") != nullptr) {
            std::fprintf(stderr, "%.2f s\n", std::chrono::duration<double>(Clock::now() - start).count());
        }
    }
    if (check::failures == 0) std::puts("all checks passed");
    return check::failures == 0 ? 0 : 1;
}
