#include "retinaface/nms.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "kernels/kernels.hpp"

namespace retinaface {

namespace {

constexpr std::size_t kSoaPadding = 8;
constexpr std::uint32_t kNone = 0xFFFFFFFFU;

// --- order -----------------------------------------------------------------------------------------------------------

constexpr unsigned kDigitBits = 11;
constexpr std::size_t kDigits = std::size_t{1} << kDigitBits;
// Below this count a comparison sort is faster than clearing the histograms of a radix sort.
constexpr std::size_t kRadixFrom = 96;

// Ascending keys are descending scores. Zero is added so that -0 and 0 are equal.
std::uint32_t descending_key(float score) noexcept {
    const float normal = score + 0.0F;
    std::uint32_t bits = 0;
    std::memcpy(&bits, &normal, sizeof bits);
    const std::uint32_t ascending = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
    return ~ascending;
}

unsigned bit_width(std::uint32_t value) noexcept {
    unsigned width = 0;
    for (; value != 0; value >>= 1U) ++width;
    return width;
}

// Sorts by the upper 32 bits, less `base`, of which `bits` are in use; stable. `spare` has room for n.
void radix_sort(std::uint64_t* keys, std::uint64_t* spare, std::size_t n, std::uint32_t base, unsigned bits) {
    std::uint64_t* from = keys;
    std::uint64_t* to = spare;
    for (unsigned shift = 0; shift < bits; shift += kDigitBits) {
        std::array<std::uint32_t, kDigits> start{};
        const auto digit = [base, shift](std::uint64_t key) noexcept {
            return (static_cast<std::uint32_t>(key >> 32U) - base) >> shift & (kDigits - 1);
        };
        for (std::size_t i = 0; i < n; ++i) ++start[digit(from[i])];
        std::uint32_t sum = 0;
        for (std::uint32_t& count : start) sum += std::exchange(count, sum);
        for (std::size_t i = 0; i < n; ++i) to[start[digit(from[i])]++] = from[i];
        std::swap(from, to);
    }
    if (from != keys) std::copy(from, from + n, keys);
}

// Leaves only keys that can be among the first top_k, in their order: a histogram of the leading digit tells from
// which digit on none is needed.
std::size_t drop_far_behind(std::uint64_t* keys, std::size_t n, std::size_t top_k, std::uint32_t base, unsigned bits) {
    const unsigned shift = bits > kDigitBits ? bits - kDigitBits : 0;
    std::array<std::uint32_t, kDigits> count{};
    const auto digit = [base, shift](std::uint64_t key) noexcept {
        return (static_cast<std::uint32_t>(key >> 32U) - base) >> shift;
    };
    for (std::size_t i = 0; i < n; ++i) ++count[digit(keys[i])];
    std::size_t last = 0;
    for (std::size_t sum = count[0]; sum < top_k; sum += count[last]) ++last;
    std::size_t left = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (digit(keys[i]) <= last) keys[left++] = keys[i];
    }
    return left;
}

// --- suppression -------------------------------------------------------------------------------------------------------

// Kept boxes by place and size, so that a candidate meets only those that can overlap it enough.
//
// Two bounds hold for IoU > t (both follow from IoU being at most the IoU of the projections onto an axis):
//   the longer sides differ by less than the factor t:   t < longer_a / longer_b < 1 / t
//   the centres are near on each axis:                    |centre_a - centre_b| < (1 - t) / (2 (1 + t)) (side_a + side_b)
// Level k holds boxes with a longer side in [2^k, 2^(k+1)), in square cells by their centre. Cells are buckets of a
// hash table: two cells in one bucket cost time, never a wrong answer, for every box met is compared exactly.
class Grid {
  public:
    Grid(float threshold, NmsWorkspace& workspace, std::size_t max_count)
        : workspace_(workspace),
          // A little below the threshold, for the rounding of the float32 IoU.
          ratio_(static_cast<double>(threshold) * (1.0 - 1e-5)),
          reach_((1.0 - ratio_) / (2.0 * (1.0 + ratio_))) {
        std::size_t buckets = 1024;
        while (buckets < 2 * max_count) buckets *= 2;
        workspace_.grid_heads.assign(buckets, kNone);
        workspace_.grid_next.clear();
        mask_ = buckets - 1;
        // As wide as the window of a query of the same size, within limits.
        cell_factor_ = std::min(1.0, std::max(4.0 * reach_, 1.0 / 64.0));
    }

    // Adds the next kept box; the calls come in the order of the kept boxes.
    void add(const float* box) {
        const Extent extent = extent_of(box);
        const double cell = cell_side(extent.level);
        const std::size_t bucket = bucket_of(extent.level, cell_of(extent.x, cell), cell_of(extent.y, cell));
        workspace_.grid_next.push_back(workspace_.grid_heads[bucket]);
        workspace_.grid_heads[bucket] = static_cast<std::uint32_t>(workspace_.grid_next.size() - 1);
        const auto slot = static_cast<std::size_t>(extent.level - kMinLevel);
        level_used_[slot] = true;
        lowest_ = std::min(lowest_, extent.level);
        highest_ = std::max(highest_, extent.level);
    }

    // Whether a kept box has IoU > threshold with `box`.
    [[nodiscard]] bool overlaps(const BoxesSoa& kept, const float* box, float area, float threshold,
                                const Kernels& kernel) const noexcept {
        const Extent extent = extent_of(box);
        const int from = ratio_ > 0.0 ? std::max(lowest_, level_of(extent.longer * ratio_)) : lowest_;
        const int to = ratio_ > 0.0 ? std::min(highest_, level_of(extent.longer / ratio_)) : highest_;
        const std::size_t count = workspace_.grid_next.size();
        for (int level = from; level <= to; ++level) {
            if (!level_used_[static_cast<std::size_t>(level - kMinLevel)]) continue;
            const double cell = cell_side(level);
            const double other = std::ldexp(1.0, level + 1);
            const double reach_x = reach_ * (extent.width + other) * (1.0 + 1e-9);
            const double reach_y = reach_ * (extent.height + other) * (1.0 + 1e-9);
            const double columns = (2.0 * reach_x) / cell + 2.0;
            const double rows = (2.0 * reach_y) / cell + 2.0;
            // A large box over a level of tiny cells: looking at every kept box is less work.
            if (columns * rows > static_cast<double>(count) / 8.0 + 16.0) {
                return kernel.any_overlap(kept, count, box, area, threshold);
            }
            const std::int64_t column_to = cell_of(extent.x + reach_x, cell);
            const std::int64_t row_to = cell_of(extent.y + reach_y, cell);
            for (std::int64_t row = cell_of(extent.y - reach_y, cell); row <= row_to; ++row) {
                for (std::int64_t column = cell_of(extent.x - reach_x, cell); column <= column_to; ++column) {
                    if (bucket_overlaps(bucket_of(level, column, row), kept, box, area, threshold)) return true;
                }
            }
        }
        return false;
    }

  private:
    struct Extent {
        double x, y, width, height, longer;
        int level;
    };

    static constexpr int kMinLevel = -160;
    static constexpr int kMaxLevel = 130;

    static int level_of(double longer) noexcept {
        if (!(longer > 0.0)) return kMinLevel;
        if (std::isinf(longer)) return kMaxLevel;
        return std::clamp(std::ilogb(longer), kMinLevel, kMaxLevel);
    }

    static Extent extent_of(const float* box) noexcept {
        const double x1 = box[0];
        const double y1 = box[1];
        const double x2 = box[2];
        const double y2 = box[3];
        const double longer = std::max(x2 - x1, y2 - y1);
        return {(x1 + x2) * 0.5, (y1 + y2) * 0.5, x2 - x1, y2 - y1, longer, level_of(longer)};
    }

    [[nodiscard]] double cell_side(int level) const noexcept { return std::ldexp(cell_factor_, level + 1); }

    static std::int64_t cell_of(double coordinate, double cell) noexcept {
        // Boxes farther away than 2^62 cells share the outermost ones.
        constexpr double kLimit = 4.6e18;
        return static_cast<std::int64_t>(std::floor(std::clamp(coordinate / cell, -kLimit, kLimit)));
    }

    [[nodiscard]] std::size_t bucket_of(int level, std::int64_t column, std::int64_t row) const noexcept {
        std::uint64_t hash = static_cast<std::uint64_t>(column) * 0x9E3779B97F4A7C15U;
        hash ^= static_cast<std::uint64_t>(row) * 0xC2B2AE3D27D4EB4FU;
        hash ^= static_cast<std::uint64_t>(level) * 0x165667B19E3779F9U;
        hash ^= hash >> 29U;
        hash *= 0xBF58476D1CE4E5B9U;
        return static_cast<std::size_t>(hash >> 32U) & mask_;
    }

    [[nodiscard]] bool bucket_overlaps(std::size_t bucket, const BoxesSoa& kept, const float* box, float area,
                                       float threshold) const noexcept {
        for (std::uint32_t j = workspace_.grid_heads[bucket]; j != kNone; j = workspace_.grid_next[j]) {
            const float width = std::min(kept.x2[j], box[2]) - std::max(kept.x1[j], box[0]);
            const float height = std::min(kept.y2[j], box[3]) - std::max(kept.y1[j], box[1]);
            if (!(width > 0.0F) || !(height > 0.0F)) continue;
            const float intersection = width * height;
            if (intersection / ((area + kept.area[j]) - intersection) > threshold) return true;
        }
        return false;
    }

    NmsWorkspace& workspace_;
    double ratio_;
    double reach_;
    double cell_factor_ = 1.0;
    std::size_t mask_ = 0;
    int lowest_ = kMaxLevel;
    int highest_ = kMinLevel;
    std::array<bool, kMaxLevel - kMinLevel + 1> level_used_{};
};

void append_kept(NmsWorkspace::Kept& kept, const float* box, float area) {
    if (kept.count == kept.area.size()) {
        const std::size_t size = std::max<std::size_t>(64, 2 * kept.count);
        for (std::vector<float>* side : {&kept.x1, &kept.y1, &kept.x2, &kept.y2, &kept.area}) {
            side->resize(size, 0.0F);
        }
    }
    // The vector that the box falls into is read as a whole: what an earlier call left there must go.
    if (kept.count % kSoaPadding == 0) {
        for (std::vector<float>* side : {&kept.x1, &kept.y1, &kept.x2, &kept.y2, &kept.area}) {
            std::fill_n(side->data() + kept.count, kSoaPadding, 0.0F);
        }
    }
    kept.x1[kept.count] = box[0];
    kept.y1[kept.count] = box[1];
    kept.x2[kept.count] = box[2];
    kept.y2[kept.count] = box[3];
    kept.area[kept.count] = area;
    ++kept.count;
}

BoxesSoa view(const NmsWorkspace::Kept& kept) noexcept {
    return {kept.x1.data(), kept.y1.data(), kept.x2.data(), kept.y2.data(), kept.area.data()};
}

}  // namespace

float round_down_to_float(double threshold) noexcept {
    const auto nearest = static_cast<float>(threshold);
    if (static_cast<double>(nearest) <= threshold) return nearest;
    return std::nextafter(nearest, -std::numeric_limits<float>::infinity());
}

std::size_t sort_by_score(const float* scores, std::size_t n, std::size_t top_k, NmsWorkspace& workspace,
                          std::uint32_t* order) {
    if (n == 0) return 0;
    const std::size_t wanted = top_k == 0 ? n : std::min(n, top_k);
    std::vector<std::uint64_t>& keys = workspace.sort_keys;
    if (keys.size() < n) keys.resize(n);
    std::uint32_t lowest = 0xFFFFFFFFU;
    std::uint32_t highest = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint32_t key = descending_key(scores[i]);
        lowest = std::min(lowest, key);
        highest = std::max(highest, key);
        keys[i] = static_cast<std::uint64_t>(key) << 32U | i;
    }
    const unsigned bits = bit_width(highest - lowest);
    const std::size_t left = wanted < n ? drop_far_behind(keys.data(), n, wanted, lowest, bits) : n;
    if (left < kRadixFrom) {
        std::sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(left));
    } else {
        if (workspace.sort_spare.size() < left) workspace.sort_spare.resize(left);
        radix_sort(keys.data(), workspace.sort_spare.data(), left, lowest, bits);
    }
    for (std::size_t i = 0; i < wanted; ++i) order[i] = static_cast<std::uint32_t>(keys[i]);
    return wanted;
}

std::size_t nms_sorted(const float* boxes_xyxy, std::size_t n, double iou_threshold, std::size_t keep_top_k,
                       NmsWorkspace& workspace, std::uint32_t* kept_positions) {
    const Kernels& kernel = kernels();
    const float threshold = round_down_to_float(iou_threshold);
    const std::size_t wanted = keep_top_k == 0 ? n : std::min(n, keep_top_k);
    NmsWorkspace::Kept& kept = workspace.kept;
    kept.count = 0;
    std::optional<Grid> grid;
    std::size_t found = 0;
    for (std::size_t i = 0; i < n && found < wanted; ++i) {
        const float* const box = boxes_xyxy + 4 * i;
        const float width = box[2] - box[0];
        const float height = box[3] - box[1];
        const float area = width * height;
        // A box without area, or one that is not finite, overlaps nothing: it is kept and never asked again.
        if (width > 0.0F && height > 0.0F && area > 0.0F && area <= std::numeric_limits<float>::max()) {
            const bool suppressed = grid ? grid->overlaps(view(kept), box, area, threshold, kernel)
                                         : kernel.any_overlap(view(kept), kept.count, box, area, threshold);
            if (suppressed) continue;
            append_kept(kept, box, area);
            if (grid) {
                grid->add(box);
            } else if (kept.count == kNmsGridFrom) {
                grid.emplace(threshold, workspace, wanted);
                for (std::size_t j = 0; j < kept.count; ++j) {
                    const float earlier[4] = {kept.x1[j], kept.y1[j], kept.x2[j], kept.y2[j]};
                    grid->add(earlier);
                }
            }
        }
        kept_positions[found++] = static_cast<std::uint32_t>(i);
    }
    return found;
}

std::vector<std::uint32_t> nms(const float* boxes_xyxy, const float* scores, std::size_t n, double iou_threshold,
                               std::size_t top_k, std::size_t keep_top_k, NmsWorkspace& workspace) {
    std::vector<std::uint32_t> order(n);
    const std::size_t candidates = sort_by_score(scores, n, top_k, workspace, order.data());
    std::vector<float>& sorted = workspace.sorted_boxes;
    if (sorted.size() < 4 * candidates) sorted.resize(4 * candidates);
    for (std::size_t i = 0; i < candidates; ++i) {
        std::memcpy(sorted.data() + 4 * i, boxes_xyxy + 4 * static_cast<std::size_t>(order[i]), 4 * sizeof(float));
    }
    std::vector<std::uint32_t> kept(candidates);
    kept.resize(nms_sorted(sorted.data(), candidates, iou_threshold, keep_top_k, workspace, kept.data()));
    for (std::uint32_t& position : kept) position = order[position];
    return kept;
}

void box_iou(const float* boxes_xyxy, std::size_t n, const float* others_xyxy, std::size_t m, float* iou) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
        const float* const a = boxes_xyxy + 4 * i;
        const float area_a = (a[2] - a[0]) * (a[3] - a[1]);
        for (std::size_t j = 0; j < m; ++j) {
            const float* const b = others_xyxy + 4 * j;
            const float area_b = (b[2] - b[0]) * (b[3] - b[1]);
            const float width = std::min(a[2], b[2]) - std::max(a[0], b[0]);
            const float height = std::min(a[3], b[3]) - std::max(a[1], b[1]);
            const float intersection = width > 0.0F && height > 0.0F ? width * height : 0.0F;
            iou[i * m + j] = intersection > 0.0F ? intersection / ((area_a + area_b) - intersection) : 0.0F;
        }
    }
}

}  // namespace retinaface
