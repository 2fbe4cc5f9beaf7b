#include "retinaface/postprocess.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <thread>

#include "arithmetic.hpp"
#include "kernels/kernels.hpp"

namespace retinaface {

namespace {

// Anchors scanned between two looks at the room that is left for candidates.
constexpr std::size_t kScanBlock = 4096;
// Rows gathered and decoded at a time, on the stack.
constexpr std::size_t kDecodeBlock = kDeltaBatch;
constexpr std::uint32_t kUnranked = 0xFFFFFFFFU;
constexpr std::size_t kPoolBytesLimit = std::size_t{8} << 20;

// Grows only: what lies past the used part is never read, and shrinking would write it again at the next
// call.
template <typename T>
T* with_room(std::vector<T>& buffer, std::size_t n) {
    if (buffer.size() < n) buffer.resize(std::max(n, buffer.size() + buffer.size() / 2));
    return buffer.data();
}

struct LevelRange {
    CellGrid grid;
    const float* sizes;
    std::uint32_t begin;
    std::uint32_t end;
};

std::size_t level_of(const std::vector<LevelRange>& ranges, std::uint32_t index) noexcept {
    std::size_t k = 0;
    while (index >= ranges[k].end) ++k;
    return k;
}

// Deltas that are all there: rows to be copied.
class DenseDeltas final : public DeltaSource {
  public:
    explicit DenseDeltas(const LevelOutputs* levels) noexcept : levels_(levels) {}

    void boxes(std::size_t level, const std::uint32_t* anchors, std::size_t count,
               float* deltas) const noexcept override {
        const float* const rows = levels_[level].box_deltas;
        for (std::size_t i = 0; i < count; ++i) {
            std::memcpy(deltas + 4 * i, rows + 4 * std::size_t{anchors[i]}, 4 * sizeof(float));
        }
    }

    void landmarks(std::size_t level, const std::uint32_t* anchors, std::size_t count,
                   float* deltas) const noexcept override {
        const float* const rows = levels_[level].landmark_deltas;
        for (std::size_t i = 0; i < count; ++i) {
            std::memcpy(deltas + kLandmarkFloats * i, rows + kLandmarkFloats * std::size_t{anchors[i]},
                        kLandmarkFloats * sizeof(float));
        }
    }

  private:
    const LevelOutputs* levels_;
};

std::size_t first_not_above(const float* scores, std::size_t n, float bound) noexcept {
    std::size_t i = 0;
    while (i < n && scores[i] > bound) ++i;
    return i;
}

bool is_finite_box(const float* box) noexcept {
    return is_finite(box[0]) && is_finite(box[1]) && is_finite(box[2]) && is_finite(box[3]);
}

}  // namespace

float logit_bound(double score_threshold) noexcept {
    const double lower = score_threshold * (1.0 - 5e-7);  // more than the error of the sigmoid
    if (!(lower > 0.0)) return -std::numeric_limits<float>::infinity();
    return round_down_to_float(std::log(lower / (1.0 - lower)));
}

std::size_t Workspace::capacity_bytes() const noexcept {
    const std::size_t floats = boxes.capacity() + scores.capacity() + landmarks.capacity() +
                               candidate_score_.capacity() + decoded_.capacity() +
                               nms_.sorted_boxes.capacity() + nms_.areas.capacity() +
                               10 * nms_.kept.area.capacity();
    const std::size_t integers = candidate_index_.capacity() + order_.capacity() + rank_.capacity() +
                                 kept_.capacity() + nms_.cells.capacity() + nms_.grid_heads.capacity() +
                                 7 * nms_.grid_entries.capacity();
    const std::size_t keys = nms_.sort_keys.capacity() + nms_.sort_spare.capacity();
    return floats * sizeof(float) + integers * sizeof(std::uint32_t) + keys * sizeof(std::uint64_t);
}

void postprocess(const AnchorPyramid& pyramid, ImageSize image, const LevelOutputs* levels,
                 const PostprocessOptions& options, Workspace& workspace) {
    std::vector<const float*> class_scores;
    class_scores.reserve(pyramid.levels().size());
    for (std::size_t k = 0; k < pyramid.levels().size(); ++k) class_scores.push_back(levels[k].class_scores);
    postprocess(pyramid, image, class_scores.data(), DenseDeltas(levels), options, workspace);
}

void postprocess(const AnchorPyramid& pyramid, ImageSize image, const float* const* class_scores,
                 const DeltaSource& source, const PostprocessOptions& options, Workspace& workspace) {
    const Kernels& kernel = kernels();
    const bool logits = options.score_kind == ScoreKind::logits;
    const float score_bound = round_down_to_float(options.score_threshold);
    const float scan_bound = logits ? logit_bound(options.score_threshold) : score_bound;
    const auto scan = logits ? kernel.scan_logits : kernel.scan_probabilities;

    // Scan: index and score of every anchor above the threshold, in index order.
    std::vector<LevelRange> ranges;
    ranges.reserve(pyramid.levels().size());
    std::size_t found = 0;
    std::size_t first = 0;
    for (std::size_t k = 0; k < pyramid.levels().size(); ++k) {
        const std::size_t count = pyramid.num_anchors(k, image);
        for (std::size_t i = 0; i < count; i += kScanBlock) {
            const std::size_t block = std::min(kScanBlock, count - i);
            std::uint32_t* const index = with_room(workspace.candidate_index_, found + block + kScanSlack);
            float* const value = with_room(workspace.candidate_score_, found + block + kScanSlack);
            found += scan(class_scores[k] + 2 * i, block, scan_bound, static_cast<std::uint32_t>(first + i),
                          index + found, value + found);
        }
        ranges.push_back({CellGrid(pyramid.levels()[k], pyramid.feature_size(k, image)),
                          pyramid.levels()[k].sizes.data(), static_cast<std::uint32_t>(first),
                          static_cast<std::uint32_t>(first + count)});
        first += count;
    }
    std::uint32_t* const index = with_room(workspace.candidate_index_, found);
    float* const score = with_room(workspace.candidate_score_, found);
    if (logits) {
        kernel.sigmoid(score, found);
        // The bound of the scan is a little low; hardly ever does a score turn out not to be above the
        // threshold.
        const std::size_t first_below = first_not_above(score, found, score_bound);
        std::size_t above = first_below;
        for (std::size_t i = first_below; i < found; ++i) {
            index[above] = index[i];
            score[above] = score[i];
            above += score[i] > score_bound ? 1 : 0;
        }
        found = above;
    }

    // Order, then decode the boxes of the first top_k in index order, which reads the outputs front to back;
    // each box goes to its place in the order.
    std::uint32_t* const order = with_room(workspace.order_, found);
    const std::size_t ordered = sort_by_score(score, found, options.top_k, workspace.nms_, order);
    std::uint32_t* const rank = with_room(workspace.rank_, found);
    if (ordered < found) std::fill_n(rank, found, kUnranked);
    for (std::size_t i = 0; i < ordered; ++i) rank[order[i]] = static_cast<std::uint32_t>(i);
    float* const decoded = with_room(workspace.decoded_, 4 * ordered);
    bool all_finite = true;
    std::size_t candidate = 0;
    for (std::size_t level = 0; level < ranges.size(); ++level) {
        const LevelRange& range = ranges[level];
        while (candidate < found && index[candidate] < range.end) {
            float anchors[4 * kDecodeBlock];
            float deltas[4 * kDecodeBlock];
            float boxes[4 * kDecodeBlock];
            std::uint32_t locals[kDecodeBlock];
            std::uint32_t places[kDecodeBlock];
            std::size_t count = 0;
            for (; count < kDecodeBlock && candidate < found && index[candidate] < range.end; ++candidate) {
                if (rank[candidate] == kUnranked) continue;
                const std::uint32_t local = index[candidate] - range.begin;
                write_anchor(range.grid, range.sizes, local, anchors + 4 * count);
                locals[count] = local;
                places[count++] = rank[candidate];
            }
            source.boxes(level, locals, count, deltas);
            all_finite = kernel.decode_boxes(deltas, anchors, count, options.variances, boxes) && all_finite;
            for (std::size_t i = 0; i < count; ++i) {
                std::memcpy(decoded + 4 * std::size_t{places[i]}, boxes + 4 * i, 4 * sizeof(float));
            }
        }
    }
    std::size_t finite = all_finite ? ordered : 0;
    for (std::size_t i = finite; i < ordered; ++i) {
        if (!is_finite_box(decoded + 4 * i)) continue;
        if (finite != i) {
            std::memcpy(decoded + 4 * finite, decoded + 4 * i, 4 * sizeof(float));
            order[finite] = order[i];
        }
        ++finite;
    }

    std::uint32_t* const kept = with_room(workspace.kept_, finite);
    const std::size_t faces =
        nms_sorted(decoded, finite, options.nms_threshold, options.keep_top_k, workspace.nms_, kept);

    workspace.boxes.resize(4 * faces);
    workspace.scores.resize(faces);
    workspace.landmarks.resize(kLandmarkFloats * faces);
    for (std::size_t block = 0; block < faces; block += kDecodeBlock) {
        const std::size_t count = std::min(kDecodeBlock, faces - block);
        float anchors[4 * kDecodeBlock];
        float deltas[kLandmarkFloats * kDecodeBlock];
        std::size_t levels[kDecodeBlock];
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t position = kept[block + i];
            const std::uint32_t global = index[order[position]];
            levels[i] = level_of(ranges, global);
            std::memcpy(workspace.boxes.data() + 4 * (block + i), decoded + 4 * position, 4 * sizeof(float));
            workspace.scores[block + i] = score[order[position]];
            const LevelRange& range = ranges[levels[i]];
            write_anchor(range.grid, range.sizes, global - range.begin, anchors + 4 * i);
        }
        for (std::size_t level = 0; level < ranges.size(); ++level) {
            float rows[kLandmarkFloats * kDecodeBlock];
            std::uint32_t locals[kDecodeBlock];
            std::size_t places[kDecodeBlock];
            std::size_t found_here = 0;
            for (std::size_t i = 0; i < count; ++i) {
                if (levels[i] != level) continue;
                locals[found_here] = index[order[kept[block + i]]] - ranges[level].begin;
                places[found_here++] = i;
            }
            source.landmarks(level, locals, found_here, rows);
            for (std::size_t i = 0; i < found_here; ++i) {
                std::memcpy(deltas + kLandmarkFloats * places[i], rows + kLandmarkFloats * i,
                            kLandmarkFloats * sizeof(float));
            }
        }
        kernel.decode_landmarks(deltas, anchors, count, options.variances,
                                workspace.landmarks.data() + kLandmarkFloats * block);
    }
}

std::unique_ptr<Workspace> WorkspacePool::acquire() {
    std::unique_ptr<Workspace> workspace = free_.take();
    return workspace != nullptr ? std::move(workspace) : std::make_unique<Workspace>();
}

void WorkspacePool::release(std::unique_ptr<Workspace> workspace) noexcept {
    if (workspace == nullptr || workspace->capacity_bytes() > kPoolBytesLimit) return;
    static_cast<void>(free_.give(workspace));  // freed if there is no room
}

void postprocess_batch(const AnchorPyramid& pyramid, ImageSize image, const LevelOutputs* levels,
                       std::size_t batch_size, const PostprocessOptions& options, std::size_t num_threads,
                       const std::vector<std::unique_ptr<Workspace>>& workspaces) {
    const std::size_t level_count = pyramid.levels().size();
    if (std::min(num_threads, batch_size) <= 1) {
        for (std::size_t i = 0; i < batch_size; ++i) {
            postprocess(pyramid, image, levels + i * level_count, options, *workspaces[i]);
        }
        return;
    }
    std::atomic<std::size_t> next{0};
    const auto work = [&]() {
        for (std::size_t i = next++; i < batch_size; i = next++) {
            postprocess(pyramid, image, levels + i * level_count, options, *workspaces[i]);
        }
    };
    // Threads of this call alone: nothing to share between detectors and nothing that a fork could break. One
    // costs some 20 microseconds, less than a second image of a batch worth sharing out.
    const std::size_t helpers = std::min(num_threads, batch_size) - 1;
    std::vector<std::exception_ptr> failures(helpers + 1);
    const auto guarded = [&](std::size_t slot) noexcept {
        try {
            work();
        } catch (...) {
            failures[slot] = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    threads.reserve(helpers);
    for (std::size_t i = 0; i < helpers; ++i) {
        try {
            threads.emplace_back(guarded, i + 1);
        } catch (...) {
            // No more threads, or no memory for one: those that run share out what is left. Nothing may leave
            // this loop, for a running thread must be joined.
            break;
        }
    }
    guarded(0);
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& failure : failures) {
        if (failure) std::rethrow_exception(failure);
    }
}

}  // namespace retinaface
