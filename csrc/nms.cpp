#include "retinaface/nms.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "arithmetic.hpp"
#include "kernels/kernels.hpp"

namespace retinaface {

namespace {

constexpr std::size_t kSoaPadding = 16;
constexpr std::uint32_t kNone = 0xFFFFFFFFU;

// --- order
// -----------------------------------------------------------------------------------------------------------

// Below this count a comparison sort is faster than clearing the histograms of a radix sort.
constexpr std::size_t kRadixFrom = 64;
// A few thousand keys are sorted by small digits, whose histogram is soon cleared; many by large ones, in
// fewer passes.
constexpr unsigned kSmallDigitBits = 9;
constexpr unsigned kLargeDigitBits = 11;
constexpr std::size_t kLargeDigitsFrom = 4096;

unsigned bit_width(std::uint32_t value) noexcept {
    unsigned width = 0;
    for (; value != 0; value >>= 1U) ++width;
    return width;
}

// Sorts by the upper 32 bits, less `base`, of which `bits` are in use; stable. `spare` has room for n. The
// digits of all passes are counted in one.
template <unsigned kDigitBits>
void radix_sort(std::uint64_t* keys, std::uint64_t* spare, std::size_t n, std::uint32_t base, unsigned bits) {
    constexpr std::size_t kDigits = std::size_t{1} << kDigitBits;
    constexpr std::size_t kMaxPasses = (32 + kDigitBits - 1) / kDigitBits;
    const std::size_t passes = (bits + kDigitBits - 1) / kDigitBits;
    std::array<std::array<std::uint32_t, kDigits>, kMaxPasses> start;
    for (std::size_t pass = 0; pass < passes; ++pass) start[pass].fill(0);
    for (std::size_t i = 0; i < n; ++i) {
        std::uint32_t rest = static_cast<std::uint32_t>(keys[i] >> 32U) - base;
        for (std::size_t pass = 0; pass < passes; ++pass, rest >>= kDigitBits)
            ++start[pass][rest & (kDigits - 1)];
    }
    std::uint64_t* from = keys;
    std::uint64_t* to = spare;
    for (std::size_t pass = 0; pass < passes; ++pass) {
        std::uint32_t sum = 0;
        for (std::uint32_t& count : start[pass]) sum += std::exchange(count, sum);
        const auto shift = static_cast<unsigned>(pass) * kDigitBits;
        for (std::size_t i = 0; i < n; ++i) {
            const std::uint32_t digit =
                (static_cast<std::uint32_t>(from[i] >> 32U) - base) >> shift & (kDigits - 1);
            to[start[pass][digit]++] = from[i];
        }
        std::swap(from, to);
    }
    if (from != keys) std::copy(from, from + n, keys);
}

// Leaves only keys that can be among the first top_k, in their order: a histogram of the leading digit tells
// from which digit on none is needed.
std::size_t drop_far_behind(std::uint64_t* keys, std::size_t n, std::size_t top_k, std::uint32_t base,
                            unsigned bits) {
    const unsigned shift = bits > kLargeDigitBits ? bits - kLargeDigitBits : 0;
    std::array<std::uint32_t, std::size_t{1} << kLargeDigitBits> count{};
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

// --- suppression
// -------------------------------------------------------------------------------------------------------

void make_room(NmsWorkspace::Kept& kept, std::size_t boxes) {
    const std::size_t padded = (boxes + kSoaPadding - 1) / kSoaPadding * kSoaPadding;
    if (kept.boxes.size() < boxes) kept.boxes.resize(boxes);
    for (std::vector<float>* side : {&kept.x1, &kept.y1, &kept.x2, &kept.y2, &kept.area}) {
        if (side->size() < padded) side->resize(padded);
    }
}

void append(NmsWorkspace::Kept& kept, const float* box, float area) noexcept {
    // The vectors that the box falls into are read as a whole: what an earlier call left there must go.
    if (kept.count % kSoaPadding == 0) {
        for (std::vector<float>* side : {&kept.x1, &kept.y1, &kept.x2, &kept.y2, &kept.area}) {
            std::fill_n(side->data() + kept.count, kSoaPadding, 0.0F);
        }
    }
    kept.boxes[kept.count] = {box[0], box[1], box[2], box[3], area};
    kept.x1[kept.count] = box[0];
    kept.y1[kept.count] = box[1];
    kept.x2[kept.count] = box[2];
    kept.y2[kept.count] = box[3];
    kept.area[kept.count] = area;
    ++kept.count;
}

bool meets(const NmsWorkspace::KeptBox& kept, const float* box, float area, float threshold) noexcept {
    const float sides[4] = {kept.x1, kept.y1, kept.x2, kept.y2};
    return overlaps(box, area, sides, kept.area, threshold);
}

BoxesSoa view(const NmsWorkspace::Kept& kept) noexcept {
    return {kept.x1.data(), kept.y1.data(), kept.x2.data(), kept.y2.data(), kept.area.data()};
}

// Kept boxes by place and size, so that a candidate meets only those that can overlap it enough.
//
// For IoU > t, two bounds hold on each axis, since an IoU is at most the IoU of the projections onto an axis:
//   sides:    t < side_a / side_b < 1 / t
//   centres:  |centre_a - centre_b| < f (side_a + side_b), with f = (1 - t) / (2 (1 + t))
// Boxes are put on levels by their longer side, which may grow fourfold within a level; a level has square
// cells as wide as its longest side. A kept box is entered in every cell that its reach f (1 + r) side
// touches, with r = 1 / t, the largest ratio that counts; a candidate then looks only into the cell of its
// own centre, on the two or three levels that its size allows. Below t = 1 / 4 that reach is held at r = 4
// and the candidate looks around for the rest. Cells are buckets of a hash table: two cells in one bucket
// cost time, never a wrong answer, for the comparison is exact.
class Grid {
  public:
    Grid(float threshold, NmsWorkspace& workspace, std::size_t expected_boxes)
        : workspace_(workspace),
          threshold_(threshold),
          // A little below the threshold, for the rounding of the float32 IoU and of these bounds.
          ratio_(static_cast<double>(threshold) * (1.0 - 1e-5)) {
        const double reach = (1.0 - ratio_) / (2.0 * (1.0 + ratio_)) * (1.0 + 1e-5);
        const double ratio_met = ratio_ > 0.25 ? 1.0 / ratio_ : 4.0;
        entry_reach_ = reach * (1.0 + ratio_met);
        query_reach_ = ratio_ > 0.25 ? 0.0 : reach * (1.0 - ratio_met * ratio_);
        std::size_t buckets = 256;
        while (buckets < 2 * expected_boxes) buckets *= 2;
        workspace_.grid_heads.assign(buckets, kNone);
        workspace_.grid_entries.clear();
        mask_ = buckets - 1;
    }

    void add(const float* box, float area, std::uint32_t position) {
        const Extent extent = extent_of(box);
        const Cells cells = cells_around(extent, extent.level, entry_reach_);
        for (std::int64_t row = cells.row_from; row <= cells.row_to; ++row) {
            for (std::int64_t column = cells.column_from; column <= cells.column_to; ++column) {
                std::uint32_t& head = workspace_.grid_heads[bucket_of(extent.level, column, row)];
                workspace_.grid_entries.push_back({box[0], box[1], box[2], box[3], area, position, head});
                head = static_cast<std::uint32_t>(workspace_.grid_entries.size() - 1);
            }
        }
        used_[extent.level] = true;
        lowest_ = std::min(lowest_, extent.level);
        highest_ = std::max(highest_, extent.level);
    }

    // The position of a kept box that has IoU > threshold with `box`, or the number of kept boxes.
    [[nodiscard]] std::size_t find_overlap(const NmsWorkspace::Kept& kept, const float* box, float area,
                                           const Kernels& kernel) const noexcept {
        // Products of sides this small are subnormal and so coarse that an IoU can be anything: the bounds do
        // not hold.
        if (area < kCoarseArea) return kernel.find_overlap(view(kept), kept.count, box, area, threshold_);
        const Extent extent = extent_of(box);
        const unsigned from = std::max(lowest_, level_of(extent.longer * ratio_));
        const unsigned to = ratio_ > 0.0 ? std::min(highest_, level_of(extent.longer / ratio_)) : highest_;
        for (unsigned level = from; level <= to; ++level) {
            if (!used_[level]) continue;
            const Cells cells = cells_around(extent, level, query_reach_);
            // A large box over tiny cells, at a low threshold: looking at every kept box is less work.
            const double visits = static_cast<double>(cells.column_to - cells.column_from + 1) *
                                  static_cast<double>(cells.row_to - cells.row_from + 1);
            if (visits > 16.0 + static_cast<double>(kept.count) / 8.0) {
                return kernel.find_overlap(view(kept), kept.count, box, area, threshold_);
            }
            for (std::int64_t row = cells.row_from; row <= cells.row_to; ++row) {
                for (std::int64_t column = cells.column_from; column <= cells.column_to; ++column) {
                    const std::uint32_t at = find_in_bucket(bucket_of(level, column, row), box, area);
                    if (at != kNone) return at;
                }
            }
        }
        return kept.count;
    }

  private:
    static constexpr std::size_t kLevels = 128;
    static constexpr float kCoarseArea = 1e-30F;

    struct Extent {
        double x, y, width, height, longer;
        unsigned level;
    };
    struct Cells {
        std::int64_t column_from, column_to, row_from, row_to;
    };

    // Half of the biased float32 exponent.
    static unsigned level_of(double longer) noexcept {
        const auto side = static_cast<float>(longer);
        std::uint32_t bits = 0;
        std::memcpy(&bits, &side, sizeof bits);
        return bits >> 24U;
    }

    static Extent extent_of(const float* box) noexcept {
        const double x1 = box[0];
        const double y1 = box[1];
        const double x2 = box[2];
        const double y2 = box[3];
        const double longer = std::max(x2 - x1, y2 - y1);
        return {(x1 + x2) * 0.5, (y1 + y2) * 0.5, x2 - x1, y2 - y1, longer, level_of(longer)};
    }

    // 1 / side of a cell: the side is the power of two that ends the level.
    static double inverse_cell(unsigned level) noexcept {
        const std::uint64_t bits = static_cast<std::uint64_t>(1023 + 127 - 2 - 2 * static_cast<int>(level))
                                   << 52U;
        double inverse = 0.0;
        std::memcpy(&inverse, &bits, sizeof inverse);
        return inverse;
    }

    static std::int64_t floor_of(double value) noexcept {
        // Boxes farther away than 2^60 cells share the outermost ones.
        constexpr double kLimit = 1152921504606846976.0;
        const double near = std::min(std::max(value, -kLimit), kLimit);
        const auto truncated = static_cast<std::int64_t>(near);
        return truncated - (static_cast<double>(truncated) > near ? 1 : 0);
    }

    static Cells cells_around(const Extent& extent, unsigned level, double reach) noexcept {
        const double inverse = inverse_cell(level);
        const double x = extent.x * inverse;
        const double y = extent.y * inverse;
        if (reach == 0.0) {
            const std::int64_t column = floor_of(x);
            const std::int64_t row = floor_of(y);
            return {column, column, row, row};
        }
        const double reach_x = reach * extent.width * inverse;
        const double reach_y = reach * extent.height * inverse;
        return {floor_of(x - reach_x), floor_of(x + reach_x), floor_of(y - reach_y), floor_of(y + reach_y)};
    }

    [[nodiscard]] std::size_t bucket_of(unsigned level, std::int64_t column,
                                        std::int64_t row) const noexcept {
        std::uint64_t hash =
            static_cast<std::uint64_t>(column) * 0x9E3779B97F4A7C15U +
            (static_cast<std::uint64_t>(row) + std::uint64_t{level} * 0x10001U) * 0xC2B2AE3D27D4EB4FU;
        hash ^= hash >> 32U;
        return static_cast<std::size_t>(hash * 0xBF58476D1CE4E5B9U >> 32U) & mask_;
    }

    [[nodiscard]] std::uint32_t find_in_bucket(std::size_t bucket, const float* box,
                                               float area) const noexcept {
        const float loose_bound = loose_iou_bound(threshold_, area);
        for (std::uint32_t j = workspace_.grid_heads[bucket]; j != kNone;) {
            const NmsWorkspace::GridEntry& entry = workspace_.grid_entries[j];
            const float width = std::min(entry.x2, box[2]) - std::max(entry.x1, box[0]);
            const float height = std::min(entry.y2, box[3]) - std::max(entry.y1, box[1]);
            const float intersection = std::max(width, 0.0F) * std::max(height, 0.0F);
            const float joined = (area + entry.area) - intersection;
            // One branch that is seldom taken; the division decides, as in Kernels::find_overlap.
            if (intersection > loose_bound * joined && intersection / joined > threshold_)
                return entry.position;
            j = entry.next;
        }
        return kNone;
    }

    NmsWorkspace& workspace_;
    float threshold_;
    double ratio_;
    double entry_reach_ = 0.0;
    double query_reach_ = 0.0;
    std::size_t mask_ = 0;
    unsigned lowest_ = kLevels - 1;
    unsigned highest_ = 0;
    std::array<bool, kLevels> used_{};
};

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
        keys[i] = candidate_key(scores[i], static_cast<std::uint32_t>(i));
        const auto key = static_cast<std::uint32_t>(keys[i] >> 32U);
        lowest = std::min(lowest, key);
        highest = std::max(highest, key);
    }
    const unsigned bits = bit_width(highest - lowest);
    const std::size_t left = wanted < n ? drop_far_behind(keys.data(), n, wanted, lowest, bits) : n;
    if (left < kRadixFrom) {
        std::sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(left));
    } else {
        if (workspace.sort_spare.size() < left) workspace.sort_spare.resize(left);
        const auto sort = left < kLargeDigitsFrom ? radix_sort<kSmallDigitBits> : radix_sort<kLargeDigitBits>;
        sort(keys.data(), workspace.sort_spare.data(), left, lowest, bits);
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
    make_room(kept, wanted);
    // Each by itself: an allocation that fails between two of them must not leave one short for the next
    // call.
    if (workspace.areas.size() < n) workspace.areas.resize(n);
    if (workspace.cells.size() < n) workspace.cells.resize(n);
    float* const areas = workspace.areas.data();
    std::uint32_t* const cells = workspace.cells.data();
    kernel.measure_boxes(boxes_xyxy, n, areas, cells);
    const NmsWorkspace::KeptBox* const kept_boxes = kept.boxes.data();
    // For a place and size, the position of the kept box that suppressed the last candidate there. Most
    // candidates are neighbours of a face that is kept already, and fall to the first box that is tried.
    std::array<std::uint32_t, kHintCells> hints;
    hints.fill(0);
    std::optional<Grid> grid;
    std::size_t found = 0;
    for (std::size_t i = 0; i < n && found < wanted; ++i) {
        const float* const box = boxes_xyxy + 4 * i;
        const float area = areas[i];
        // A box without area, or one that is not finite, overlaps nothing: it is kept and never asked again.
        if (area > 0.0F) {
            std::uint32_t& hint = hints[cells[i]];
            if (kept.count > 0 && meets(kept_boxes[hint], box, area, threshold)) continue;
            const std::size_t at = grid ? grid->find_overlap(kept, box, area, kernel)
                                        : kernel.find_overlap(view(kept), kept.count, box, area, threshold);
            hint = static_cast<std::uint32_t>(at);
            if (at < kept.count) continue;
            append(kept, box, area);
            if (grid) {
                grid->add(box, area, hint);
            } else if (kept.count == kNmsGridFrom) {
                grid.emplace(threshold, workspace, wanted);
                for (std::size_t k = 0; k < kept.count; ++k) {
                    const NmsWorkspace::KeptBox& earlier = kept_boxes[k];
                    const float sides[4] = {earlier.x1, earlier.y1, earlier.x2, earlier.y2};
                    grid->add(sides, earlier.area, static_cast<std::uint32_t>(k));
                }
            }
        }
        kept_positions[found++] = static_cast<std::uint32_t>(i);
    }
    return found;
}

std::vector<std::uint32_t> nms(const float* boxes_xyxy, const float* scores, std::size_t n,
                               double iou_threshold, std::size_t top_k, std::size_t keep_top_k,
                               NmsWorkspace& workspace) {
    std::vector<std::uint32_t> order(n);
    const std::size_t candidates = sort_by_score(scores, n, top_k, workspace, order.data());
    std::vector<float>& sorted = workspace.sorted_boxes;
    if (sorted.size() < 4 * candidates) sorted.resize(4 * candidates);
    for (std::size_t i = 0; i < candidates; ++i) {
        std::memcpy(sorted.data() + 4 * i, boxes_xyxy + 4 * static_cast<std::size_t>(order[i]),
                    4 * sizeof(float));
    }
    std::vector<std::uint32_t> kept(candidates);
    kept.resize(nms_sorted(sorted.data(), candidates, iou_threshold, keep_top_k, workspace, kept.data()));
    for (std::uint32_t& position : kept) position = order[position];
    return kept;
}

void box_iou(const float* boxes_xyxy, std::size_t n, const float* others_xyxy, std::size_t m,
             float* iou) noexcept {
    for (std::size_t i = 0; i < n; ++i) {
        const float* const a = boxes_xyxy + 4 * i;
        const float area_a = (a[2] - a[0]) * (a[3] - a[1]);
        for (std::size_t j = 0; j < m; ++j) {
            const float* const b = others_xyxy + 4 * j;
            const float area_b = (b[2] - b[0]) * (b[3] - b[1]);
            const float width = std::min(a[2], b[2]) - std::max(a[0], b[0]);
            const float height = std::min(a[3], b[3]) - std::max(a[1], b[1]);
            const float intersection = width > 0.0F && height > 0.0F ? width * height : 0.0F;
            const float ratio = intersection / ((area_a + area_b) - intersection);
            // NaN is nothing over nothing, or infinity over infinity: no overlap that NMS would see.
            iou[i * m + j] = ratio == ratio ? ratio : 0.0F;
        }
    }
}

}  // namespace retinaface
