#include "engine/processors.hpp"

#include <algorithm>
#include <exception>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>
#include <vector>

#include "engine/thread_pool.hpp"

#ifdef __linux__
#include <sched.h>
#endif

namespace retinaface::engine {

namespace {

constexpr std::size_t kNoQuota = std::numeric_limits<std::size_t>::max();

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
    return parts;
}

bool contains(const std::vector<std::string>& list, const char* word) {
    return std::find(list.begin(), list.end(), word) != list.end();
}

// The group of this process in the hierarchy of version 2, or in the one of version 1 that has the
// processors; "" when it is in none. Lines of /proc/self/cgroup: hierarchy:controllers:path.
std::string group_path(const std::string& root, bool version2) {
    std::ifstream file(root + "/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        if (version2 ? controllers.empty() : contains(split(controllers, ','), "cpu")) {
            return line.substr(second + 1);
        }
    }
    return "";
}

std::size_t processors_of(long long quota, long long period) noexcept {
    if (quota <= 0 || period <= 0) return kNoQuota;
    return static_cast<std::size_t>(quota / period + (quota % period != 0 ? 1 : 0));
}

// A file that is missing or says "max" (version 2) or -1 (version 1) is no quota.
std::size_t quota_of_group(const std::string& directory, bool version2) {
    long long quota = 0, period = 0;
    if (version2) {
        std::ifstream file(directory + "/cpu.max");
        if (!(file >> quota >> period)) return kNoQuota;
    } else {
        std::ifstream quota_file(directory + "/cpu.cfs_quota_us");
        std::ifstream period_file(directory + "/cpu.cfs_period_us");
        if (!(quota_file >> quota) || !(period_file >> period)) return kNoQuota;
    }
    return processors_of(quota, period);
}

#ifdef __linux__
// 0 when the system does not say.
std::size_t affinity_processors() noexcept {
    // Of as many processors as a kernel can be built for, 8192: it refuses a set that is smaller than its
    // own.
    cpu_set_t mask[8192 / CPU_SETSIZE];
    if (sched_getaffinity(0, sizeof mask, mask) != 0) return 0;
    return static_cast<std::size_t>(CPU_COUNT_S(sizeof mask, mask));
}
#endif

}  // namespace

std::size_t cgroup_processors(const std::string& root) {
    std::size_t processors = kNoQuota;
    std::ifstream mounts(root + "/proc/self/mountinfo");
    for (std::string line; std::getline(mounts, line);) {
        // id parent device root mount-point options [tags ...] - type source super-options
        const std::vector<std::string> fields = split(line, ' ');
        const auto dash = std::find(fields.begin(), fields.end(), "-");
        if (dash - fields.begin() < 6 || fields.end() - dash < 4) continue;
        const bool version2 = dash[1] == "cgroup2";
        if (!version2 && !(dash[1] == "cgroup" && contains(split(dash[3], ','), "cpu"))) continue;

        // The path is relative to the root of the hierarchy, of which the mount may show only a part (a
        // container without a name space of its own).
        const std::string& mount_root = fields[3];
        const std::string mount_point = root + fields[4];
        std::string group = group_path(root, version2);
        if (mount_root != "/") {
            const bool inside = group == mount_root || group.rfind(mount_root + "/", 0) == 0;
            group = inside ? group.substr(mount_root.size()) : "";
        }
        // A group is bound by its ancestors, too.
        while (true) {
            while (!group.empty() && group.back() == '/') group.pop_back();
            processors = std::min(processors, quota_of_group(mount_point + group, version2));
            if (group.empty()) break;
            const std::size_t parent = group.rfind('/');
            group.resize(parent == std::string::npos ? 0 : parent);
        }
    }
    return processors;
}

std::size_t available_processors() noexcept {
    std::size_t processors = std::thread::hardware_concurrency();
#ifdef __linux__
    if (const std::size_t allowed = affinity_processors(); allowed != 0) processors = allowed;
    try {
        processors = std::min(processors, cgroup_processors(""));
    } catch (const std::exception&) {
        return std::max<std::size_t>(processors, 1);  // no memory for a few lines of text: as without a quota
    }
#endif
    return std::max<std::size_t>(processors, 1);
}

}  // namespace retinaface::engine
