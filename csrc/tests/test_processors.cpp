#include "engine/processors.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "check.hpp"
#include "engine/thread_pool.hpp"

#ifdef __linux__
#include <sched.h>
#endif

namespace {

using namespace retinaface::engine;

constexpr std::size_t kNoQuota = std::numeric_limits<std::size_t>::max();

// A machine made of the few files that are read.
class Machine {
  public:
    Machine() {
        std::random_device seed;
        root_ = std::filesystem::temp_directory_path() / ("retinaface_cgroup_" + std::to_string(seed()));
        std::filesystem::create_directories(root_);
    }
    ~Machine() {
        std::error_code ignored;
        std::filesystem::remove_all(root_, ignored);
    }
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    Machine& file(const std::string& path, const std::string& text) {
        const std::filesystem::path full = root_ / path;
        std::filesystem::create_directories(full.parent_path());
        std::ofstream(full) << text;
        return *this;
    }
    [[nodiscard]] std::size_t processors() const { return cgroup_processors(root_.string()); }

  private:
    std::filesystem::path root_;
};

const char* const kMountV2 =
    "24 18 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const char* const kMountV1 =
    "18 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "31 30 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "33 31 0:29 / /sys/fs/cgroup/cpuset rw shared:9 - cgroup cgroup rw,cpuset\n"
    "32 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:8 master:2 - cgroup cgroup rw,cpu,cpuacct\n";

void version2() {
    const struct {
        const char* text;
        std::size_t expected;
    } cases[] = {
        {"max 100000\n", kNoQuota}, {"200000 100000\n", 2},  {"200001 100000\n", 3}, {"150000 100000\n", 2},
        {"1000 100000\n", 1},       {"100000 100000", 1},    {"", kNoQuota},         {"50000", kNoQuota},
        {"50000 0", kNoQuota},      {"-5 100000", kNoQuota}, {"no number", kNoQuota}};
    for (const auto& [text, expected] : cases) {
        Machine machine;
        machine.file("proc/self/cgroup", "0::/\n").file("proc/self/mountinfo", kMountV2);
        CHECK(machine.file("sys/fs/cgroup/cpu.max", text).processors() == expected);
    }
}

// The quota of any ancestor binds; the group of a neighbour does not.
void ancestors() {
    Machine machine;
    machine.file("proc/self/cgroup", "0::/user.slice/session/work\n").file("proc/self/mountinfo", kMountV2);
    machine.file("sys/fs/cgroup/user.slice/session/work/cpu.max", "max 100000\n");
    CHECK(machine.processors() == kNoQuota);
    CHECK(machine.file("sys/fs/cgroup/user.slice/other/cpu.max", "100000 100000").processors() == kNoQuota);
    CHECK(machine.file("sys/fs/cgroup/user.slice/cpu.max", "400000 100000\n").processors() == 4);
    CHECK(machine.file("sys/fs/cgroup/user.slice/session/work/cpu.max", "800000 100000\n").processors() == 4);
    CHECK(machine.file("sys/fs/cgroup/user.slice/session/cpu.max", "30000 20000\n").processors() == 2);
}

void version1() {
    Machine machine;
    machine.file("proc/self/mountinfo", kMountV1);
    machine.file("proc/self/cgroup", "9:cpuset:/other\n4:cpu,cpuacct:/a/b\n0::/c\n");
    const std::string base = "sys/fs/cgroup/cpu,cpuacct";
    CHECK(machine.processors() == kNoQuota);
    machine.file(base + "/a/b/cpu.cfs_period_us", "50000\n");
    CHECK(machine.file(base + "/a/b/cpu.cfs_quota_us", "-1\n").processors() == kNoQuota);
    CHECK(machine.file(base + "/a/b/cpu.cfs_quota_us", "125000\n").processors() == 3);
    machine.file(base + "/a/cpu.cfs_period_us", "100000\n");
    CHECK(machine.file(base + "/a/cpu.cfs_quota_us", "100000\n").processors() == 1);
}

// A container that sees only its part of the hierarchy, by its own name or by the one that the host gives it.
void mount_of_a_part() {
    const std::string mount = "32 31 0:30 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
    for (const char* const group : {"/docker/abc", "/docker/abc/", "/docker/abcdef", "/", "/elsewhere/x"}) {
        Machine machine;
        machine.file("proc/self/mountinfo", mount)
            .file("proc/self/cgroup", std::string("4:cpu:") + group + "\n");
        machine.file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        machine.file("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n");
        machine.file("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "100000\n");
        CHECK(machine.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n").processors() == 3);
    }
    Machine machine;
    machine.file("proc/self/mountinfo", mount).file("proc/self/cgroup", "4:cpu:/docker/abc/inner\n");
    machine.file("sys/fs/cgroup/cpu/inner/cpu.cfs_period_us", "100000\n");
    CHECK(machine.file("sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "500000\n").processors() == 5);
}

// Both versions mounted: the quota counts wherever it is.
void both_versions() {
    Machine machine;
    machine.file("proc/self/mountinfo", std::string(kMountV1) + kMountV2);
    machine.file("proc/self/cgroup", "4:cpu,cpuacct:/a\n0::/c\n");
    CHECK(machine.file("sys/fs/cgroup/c/cpu.max", "600000 100000\n").processors() == 6);
    machine.file("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    CHECK(machine.file("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "200000\n").processors() == 2);
}

void files_that_make_no_sense() {
    CHECK(Machine().processors() == kNoQuota);
    Machine machine;
    machine.file("sys/fs/cgroup/cpu.max", "100000 100000\n");
    machine.file("proc/self/mountinfo", "\n - \n1 2 3\n24 18 0:22 / /sys/fs/cgroup rw -\n- cgroup2 a b\n");
    CHECK(machine.file("proc/self/cgroup", "\n:\n0\n0:\n::\n").processors() == kNoQuota);
    // No group is known: the mount itself still counts.
    CHECK(machine.file("proc/self/mountinfo", kMountV2).processors() == 1);
}

void of_this_machine() {
    CHECK(available_processors() >= 1);
    CHECK(available_processors() <= std::max<std::size_t>(std::thread::hardware_concurrency(), 1));
#ifdef __linux__
    cpu_set_t before;
    if (sched_getaffinity(0, sizeof before, &before) != 0) return;  // more processors than the test can count
    cpu_set_t one;
    CPU_ZERO(&one);
    for (std::size_t i = 0; i < CPU_SETSIZE; ++i) {
        if (!CPU_ISSET(i, &before)) continue;
        CPU_SET(i, &one);
        break;
    }
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(available_processors() == 1);
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
#endif
}

}  // namespace

CHECK_MAIN(version2, ancestors, version1, mount_of_a_part, both_versions, files_that_make_no_sense,
           of_this_machine)
