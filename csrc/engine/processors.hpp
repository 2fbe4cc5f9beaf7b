// The processor quota of control groups; the part of available_processors() that tests can feed.
#pragma once

#include <cstddef>
#include <string>

namespace retinaface::engine {

// ceil(quota / period) of the control groups of this process and all their ancestors that can be seen
// (versions 1 and 2), the smallest, at least 1; the largest std::size_t when there is no quota. `root` is put
// before every path that is read: "" for the machine itself.
[[nodiscard]] std::size_t cgroup_processors(const std::string& root);

}  // namespace retinaface::engine
