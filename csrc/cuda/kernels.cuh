// The kernels of retinaface/cuda.hpp, in the order in which a call launches them.
//
// Candidates of an image are found in the order that the threads happen to run in, and leave the sort in the
// only one that there is: a key holds score and index, and no two are equal. From there on every step has one
// answer. What is computed of an anchor, a box or a pair is csrc/arithmetic.hpp, as on the host.
//
// blockIdx.y, and blockIdx.x where one block or warp does for an image, is the image of the batch.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "arithmetic.hpp"
#include "cuda/problem.cuh"

namespace retinaface::cuda {

__device__ __forceinline__ const Level& level_of(const Problem& problem, std::uint32_t index) {
    unsigned k = 0;
    while (index >= problem.levels[k].end) ++k;
    return problem.levels[k];
}

__device__ __forceinline__ std::uint32_t ordered_count(const Problem& problem, unsigned image) {
    const std::uint32_t found = problem.found[image];
    return found < problem.order_limit ? found : problem.order_limit;
}

__device__ __forceinline__ void load_box(const float4* boxes, std::size_t at, float* box_xyxy) {
    const float4 box = boxes[at];
    box_xyxy[0] = box.x;
    box_xyxy[1] = box.y;
    box_xyxy[2] = box.z;
    box_xyxy[3] = box.w;
}

// Whether a chunk has nothing to do for an image: all candidates are before it, or enough are kept.
__device__ __forceinline__ bool chunk_is_idle(const Problem& problem, unsigned image, unsigned chunk) {
    if (chunk == 0) return false;
    return chunk * kChunk >= ordered_count(problem, image) || problem.kept_count[image] >= problem.keep_limit;
}

// Finds the candidates of all levels and images: grid (anchors / kScanBlock, batch_size). A warp asks for the
// places of all its candidates at once.
extern "C" __global__ void __launch_bounds__(kScanThreads)
    retinaface_scan(const __grid_constant__ Problem problem) {
    const unsigned image = blockIdx.y;
    const unsigned lane = threadIdx.x % kWarp;
    std::uint32_t index[kScanPerThread];
    float face[kScanPerThread];
    float background[kScanPerThread];
    for (unsigned k = 0; k < kScanPerThread; ++k) {
        index[k] = blockIdx.x * kScanBlock + k * kScanThreads + threadIdx.x;
        // Beyond the end, the last anchor once more.
        const std::uint32_t at = index[k] < problem.anchors ? index[k] : problem.anchors - 1;
        const Level& level = level_of(problem, at);
        const float* const pair = level.outputs.class_scores +
                                  static_cast<std::ptrdiff_t>(image) * level.outputs.class_stride +
                                  std::size_t{2} * (at - level.begin);
        background[k] = pair[0];
        face[k] = pair[1];
    }
    float value[kScanPerThread];
    for (unsigned k = 0; k < kScanPerThread; ++k) {
        value[k] = problem.probabilities ? face[k] : face[k] - background[k];
        if (index[k] >= problem.anchors) value[k] = problem.scan_bound;
    }
    unsigned passing[kScanPerThread];
    unsigned total = 0;
    for (unsigned k = 0; k < kScanPerThread; ++k) {
        // The bound of the scan is a little low and saves most of the exponentials.
        bool passes = value[k] > problem.scan_bound;
        if (passes && !problem.probabilities) {
            value[k] = sigmoid(value[k]);
            passes = value[k] > problem.score_bound;
        }
        passing[k] = __ballot_sync(kWholeWarp, passes);
        total += static_cast<unsigned>(__popc(passing[k]));
    }
    if (total == 0) return;  // the whole warp
    unsigned place = 0;
    if (lane == 0) place = atomicAdd(problem.found + image, total);
    place = __shfl_sync(kWholeWarp, place, 0);
    std::uint64_t* const keys = problem.keys + std::size_t{image} * problem.anchors;
    for (unsigned k = 0; k < kScanPerThread; ++k) {
        if ((passing[k] >> lane & 1U) != 0) {
            const auto before = static_cast<unsigned>(__popc(passing[k] & ((1U << lane) - 1U)));
            keys[place + before] = candidate_key(value[k], index[k]);
        }
        place += static_cast<unsigned>(__popc(passing[k]));
    }
}

// Sorts tiles of keys, each by itself (bitonic): grid (anchors / kSortTile, batch_size).
extern "C" __global__ void __launch_bounds__(kSortThreads)
    retinaface_sort(const __grid_constant__ Problem problem) {
    __shared__ std::uint64_t tile[kSortTile];
    const unsigned image = blockIdx.y;
    const std::uint32_t first = blockIdx.x * kSortTile;
    const std::uint32_t found = problem.found[image];
    if (first >= found) return;
    std::uint64_t* const keys = problem.keys + std::size_t{image} * problem.anchors + first;
    const std::uint32_t count = found - first < kSortTile ? found - first : kSortTile;
    std::uint32_t size = 2;
    while (size < count) size *= 2;
    for (std::uint32_t i = threadIdx.x; i < size; i += kSortThreads) {
        tile[i] = i < count ? keys[i] : ~std::uint64_t{0};
    }
    __syncthreads();
    for (std::uint32_t run = 2; run <= size; run *= 2) {
        for (std::uint32_t apart = run / 2; apart > 0; apart /= 2) {
            for (std::uint32_t i = threadIdx.x; i < size / 2; i += kSortThreads) {
                const std::uint32_t low = 2 * i - (i & (apart - 1));
                const std::uint32_t high = low + apart;
                const std::uint64_t a = tile[low];
                const std::uint64_t b = tile[high];
                if ((a > b) == ((low & run) == 0)) {
                    tile[low] = b;
                    tile[high] = a;
                }
            }
            __syncthreads();
        }
    }
    for (std::uint32_t i = threadIdx.x; i < count; i += kSortThreads) keys[i] = tile[i];
}

// How many of `count` ascending keys are below one.
__device__ __forceinline__ std::uint32_t keys_below(const std::uint64_t* keys, std::uint32_t count,
                                                    std::uint64_t key) {
    std::uint32_t low = 0;
    std::uint32_t high = count;
    while (low < high) {
        const std::uint32_t middle = (low + high) / 2;
        if (keys[middle] < key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// Decodes the boxes of the first order_limit and puts each in its place: grid (anchors / kDecodeThreads,
// batch_size). The place is the number of keys that are smaller, in the own tile and the others.
extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    retinaface_decode(const __grid_constant__ Problem problem) {
    const unsigned image = blockIdx.y;
    const std::uint32_t found = problem.found[image];
    const std::uint32_t at = blockIdx.x * kDecodeThreads + threadIdx.x;
    if (at >= found) return;
    const std::uint64_t* const keys = problem.keys + std::size_t{image} * problem.anchors;
    const std::uint64_t key = keys[at];
    const std::uint32_t own = at / kSortTile * kSortTile;
    std::uint32_t place = at - own;
    for (std::uint32_t first = 0; first < found && place < problem.order_limit; first += kSortTile) {
        if (first == own) continue;
        const std::uint32_t count = found - first < kSortTile ? found - first : kSortTile;
        place += keys_below(keys + first, count, key);
    }
    if (place >= problem.order_limit) return;

    const auto index = static_cast<std::uint32_t>(key);
    const Level& level = level_of(problem, index);
    const std::uint32_t local = index - level.begin;
    float anchor[4];
    write_anchor(level.grid, level.sizes, local, anchor);
    const float* const from = level.outputs.box_deltas +
                              static_cast<std::ptrdiff_t>(image) * level.outputs.box_stride +
                              std::size_t{4} * local;
    const float deltas[4] = {from[0], from[1], from[2], from[3]};
    float box[4];
    const bool finite = decode_box(deltas, anchor, problem.variances, box);
    const std::size_t to = std::size_t{image} * problem.order_limit + place;
    problem.ordered_keys[to] = key;
    problem.ordered_boxes[to] = make_float4(box[0], box[1], box[2], box[3]);
    problem.ordered_areas[to] = finite ? box_area(box) : -1.0F;
}

// Which candidates of a later chunk a kept box suppresses: grid (kChunkWords, batch_size). A block has a
// word.
extern "C" __global__ void __launch_bounds__(kCompareThreads)
    retinaface_compare(const __grid_constant__ Problem problem, unsigned chunk) {
    __shared__ unsigned halves[kCompareThreads / kWarp];
    __shared__ float4 boxes[kCompareThreads];
    __shared__ float areas[kCompareThreads];
    const unsigned image = blockIdx.y;
    if (chunk_is_idle(problem, image, chunk)) return;
    const std::size_t base = std::size_t{image} * problem.order_limit;
    const std::uint32_t place = chunk * kChunk + blockIdx.x * kWordBits + threadIdx.x % kWordBits;
    const std::uint32_t* const kept = problem.kept + std::size_t{image} * problem.keep_limit;
    const std::uint32_t kept_count = problem.kept_count[image];
    float box[4] = {};
    float area = 0.0F;
    if (place < ordered_count(problem, image)) {
        load_box(problem.ordered_boxes, base + place, box);
        area = problem.ordered_areas[base + place];
    }
    bool suppressed = false;
    for (std::uint32_t first = 0; first < kept_count; first += kCompareThreads) {
        const std::uint32_t mine = first + threadIdx.x;
        __syncthreads();  // all have done with the boxes before
        areas[threadIdx.x] = 0.0F;
        if (mine < kept_count) {
            const std::size_t other = base + kept[mine];
            boxes[threadIdx.x] = problem.ordered_boxes[other];
            areas[threadIdx.x] = problem.ordered_areas[other];
        }
        __syncthreads();
        if (!(area > 0.0F)) continue;
        for (unsigned k = threadIdx.x / kWordBits; k < kCompareThreads && !suppressed; k += kCompareShares) {
            float other_box[4];
            load_box(boxes, k, other_box);
            suppressed = areas[k] > 0.0F && overlaps(box, area, other_box, areas[k], problem.iou_threshold);
        }
    }
    const unsigned half = __ballot_sync(kWholeWarp, suppressed);
    if (threadIdx.x % kWarp == 0) halves[threadIdx.x / kWarp] = half;
    __syncthreads();
    if (threadIdx.x != 0) return;
    std::uint64_t word = 0;
    for (unsigned share = 0; share < kCompareShares; ++share) {
        word |= halves[2 * share] | static_cast<std::uint64_t>(halves[2 * share + 1]) << kWarp;
    }
    problem.removed[std::size_t{image} * kChunkWords + blockIdx.x] = word;
}

// Which of the later candidates of a chunk each one meets: grid (kChunkWords, kChunkWords, batch_size) of
// words and rows; what is left of the diagonal is never read.
extern "C" __global__ void __launch_bounds__(kOverlapRows)
    retinaface_overlap(const __grid_constant__ Problem problem, unsigned chunk) {
    __shared__ float boxes[kWordBits][4];
    __shared__ float areas[kWordBits];
    const unsigned image = blockIdx.z;
    if (blockIdx.x < blockIdx.y * (kOverlapRows / kWordBits) || chunk_is_idle(problem, image, chunk)) return;
    const std::uint32_t count = ordered_count(problem, image);
    const std::size_t base = std::size_t{image} * problem.order_limit;
    const std::uint32_t first = chunk * kChunk + blockIdx.x * kWordBits;
    if (first >= count) return;
    const std::uint32_t columns = count - first < kWordBits ? count - first : kWordBits;
    if (threadIdx.x < columns) {
        load_box(problem.ordered_boxes, base + first + threadIdx.x, boxes[threadIdx.x]);
        areas[threadIdx.x] = problem.ordered_areas[base + first + threadIdx.x];
    }
    __syncthreads();
    const std::uint32_t row = blockIdx.y * kOverlapRows + threadIdx.x;
    const std::uint32_t place = chunk * kChunk + row;
    if (place >= count || row / kWordBits > blockIdx.x) return;
    float box[4];
    load_box(problem.ordered_boxes, base + place, box);
    const float area = problem.ordered_areas[base + place];
    std::uint64_t word = 0;
    if (area > 0.0F) {
        const unsigned from = row / kWordBits == blockIdx.x ? row % kWordBits + 1 : 0;
        for (unsigned column = from; column < columns; ++column) {
            const bool meets = areas[column] > 0.0F &&
                               overlaps(boxes[column], areas[column], box, area, problem.iou_threshold);
            word |= static_cast<std::uint64_t>(meets) << column;
        }
    }
    problem.overlap[(std::size_t{image} * problem.chunk_rows + row) * kChunkWords + blockIdx.x] = word;
}

// Of the 64 candidates of a word, two for each lane: which of the later ones each meets, and its area, which
// is below 0 where it is none.
struct WordOfChunk {
    std::uint64_t low_meets, high_meets;
    float low_area, high_area;
};

__device__ __forceinline__ WordOfChunk load_word(const std::uint64_t* overlap, const float* areas,
                                                 std::uint32_t count, unsigned word) {
    const std::uint32_t low = word * kWordBits + threadIdx.x;
    const std::uint32_t high = low + kWarp;
    WordOfChunk loaded{0, 0, -1.0F, -1.0F};
    if (low < count) {
        loaded.low_meets = overlap[std::size_t{low} * kChunkWords + word];
        loaded.low_area = areas[low];
    }
    if (high < count) {
        loaded.high_meets = overlap[std::size_t{high} * kChunkWords + word];
        loaded.high_area = areas[high];
    }
    return loaded;
}

// Goes through the candidates of a chunk in order and keeps those that no kept one has suppressed: grid
// (batch_size) of one warp. A lane has a word of those that are suppressed.
extern "C" __global__ void __launch_bounds__(kWarp)
    retinaface_reduce(const __grid_constant__ Problem problem, unsigned chunk) {
    const unsigned image = blockIdx.x;
    const unsigned lane = threadIdx.x;
    if (chunk_is_idle(problem, image, chunk)) return;
    const std::uint32_t first = chunk * kChunk;
    const std::uint32_t left = ordered_count(problem, image) - first;
    const std::uint32_t count = left < kChunk ? left : kChunk;
    const unsigned words = (count + kWordBits - 1) / kWordBits;
    const float* const areas = problem.ordered_areas + std::size_t{image} * problem.order_limit + first;
    const std::uint64_t* const overlap =
        problem.overlap + std::size_t{image} * problem.chunk_rows * kChunkWords;
    std::uint32_t* const kept = problem.kept + std::size_t{image} * problem.keep_limit;
    std::uint32_t kept_count = chunk == 0 ? 0 : problem.kept_count[image];
    std::uint64_t removed = 0;
    if (chunk != 0 && lane < words) removed = problem.removed[std::size_t{image} * kChunkWords + lane];
    WordOfChunk next = load_word(overlap, areas, count, 0);
    for (unsigned word = 0; word < words && kept_count < problem.keep_limit; ++word) {
        const WordOfChunk own = next;
        if (word + 1 < words) next = load_word(overlap, areas, count, word + 1);  // on its way meanwhile
        const unsigned low_valid = __ballot_sync(kWholeWarp, own.low_area >= 0.0F);
        const unsigned high_valid = __ballot_sync(kWholeWarp, own.high_area >= 0.0F);
        std::uint64_t open = (low_valid | static_cast<std::uint64_t>(high_valid) << kWarp) &
                             ~__shfl_sync(kWholeWarp, removed, static_cast<int>(word));
        std::uint64_t chosen = 0;
        std::uint32_t room = problem.keep_limit - kept_count;
        for (; open != 0 && room != 0; --room) {
            const int best = __ffsll(static_cast<long long>(open)) - 1;
            const auto from = static_cast<unsigned>(best);
            chosen |= std::uint64_t{1} << from;
            const std::uint64_t meets = __shfl_sync(kWholeWarp, from < kWarp ? own.low_meets : own.high_meets,
                                                    best % static_cast<int>(kWarp));
            open &= ~(meets | std::uint64_t{1} << from);
        }
        const auto before = [chosen](unsigned bit) {
            const std::uint64_t lower = chosen & ((std::uint64_t{1} << bit) - 1);
            return static_cast<std::uint32_t>(__popcll(lower));
        };
        const std::uint32_t place = first + word * kWordBits;
        for (const unsigned bit : {lane, lane + kWarp}) {
            if ((chosen >> bit & 1U) != 0) kept[kept_count + before(bit)] = place + bit;
        }
        kept_count += static_cast<std::uint32_t>(__popcll(chosen));
        if (lane > word && lane < words) {
            const std::uint64_t* const rows = overlap + std::size_t{word} * kWordBits * kChunkWords + lane;
            unsigned bit = 0;
            while (chosen != 0) {  // four loads on their way at once; the last row again where fewer are left
                std::uint64_t met[4];
                for (std::uint64_t& bits : met) {
                    if (chosen != 0) bit = static_cast<unsigned>(__ffsll(static_cast<long long>(chosen)) - 1);
                    chosen &= chosen - 1;
                    bits = rows[std::size_t{bit} * kChunkWords];
                }
                removed |= (met[0] | met[1]) | (met[2] | met[3]);
            }
        }
        __syncwarp();
    }
    if (lane == 0) problem.kept_count[image] = kept_count;
}

// Writes the kept faces of all images one after the other: grid (keep_limit / kGatherThreads, batch_size).
extern "C" __global__ void __launch_bounds__(kGatherThreads)
    retinaface_gather(const __grid_constant__ Problem problem) {
    __shared__ unsigned sums[kGatherThreads / kWarp];
    const unsigned image = blockIdx.y;
    const std::uint32_t count = problem.kept_count[image];
    const std::uint32_t at = blockIdx.x * kGatherThreads + threadIdx.x;
    if (blockIdx.x * kGatherThreads >= count && blockIdx.x != 0) return;  // the whole block
    unsigned earlier = 0;
    for (unsigned i = threadIdx.x; i < image; i += kGatherThreads) earlier += problem.kept_count[i];
    for (unsigned apart = kWarp / 2; apart > 0; apart /= 2) {
        earlier += __shfl_down_sync(kWholeWarp, earlier, apart);
    }
    if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = earlier;
    __syncthreads();
    unsigned begin = 0;
    for (const unsigned sum : sums) begin += sum;
    if (at == 0) {
        problem.offsets[image] = static_cast<std::int32_t>(begin);
        if (image + 1 == problem.batch_size)
            problem.offsets[image + 1] = static_cast<std::int32_t>(begin + count);
    }
    if (at >= count) return;
    const std::uint32_t place = problem.kept[std::size_t{image} * problem.keep_limit + at];
    const std::size_t from = std::size_t{image} * problem.order_limit + place;
    const std::uint64_t key = problem.ordered_keys[from];
    const auto index = static_cast<std::uint32_t>(key);
    const Level& level = level_of(problem, index);
    const std::uint32_t local = index - level.begin;
    float anchor[4];
    write_anchor(level.grid, level.sizes, local, anchor);
    float* const row = problem.rows + (std::size_t{begin} + at) * kFaceFloats;
    load_box(problem.ordered_boxes, from, row);
    row[4] = score_of_key(static_cast<std::uint32_t>(key >> 32U));
    decode_five_landmarks(level.outputs.landmark_deltas +
                              static_cast<std::ptrdiff_t>(image) * level.outputs.landmark_stride +
                              kLandmarkFloats * local,
                          anchor, problem.variances, row + 5);
}

}  // namespace retinaface::cuda
