// What the kernels of one call are told, and how their work is cut: shared by them and by what launches them.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "arithmetic.hpp"
#include "retinaface/cuda.hpp"

namespace retinaface::cuda {

constexpr unsigned kWarp = 32;
constexpr unsigned kWholeWarp = 0xFFFFFFFFU;

// Anchors that a thread looks at: the loads of all of them are on their way at once.
constexpr unsigned kScanThreads = 256;
constexpr unsigned kScanPerThread = 4;
constexpr unsigned kScanBlock = kScanThreads * kScanPerThread;

// Keys that a block sorts in shared memory, 16 KiB. Few images have more candidates.
constexpr unsigned kSortTile = 2048;
constexpr unsigned kSortThreads = 512;

constexpr unsigned kDecodeThreads = 128;

// Candidates among which overlaps are looked for at once. Half a MiB of bits for an image; the lanes of a
// warp have a word of a row each.
constexpr unsigned kWordBits = 64;
constexpr unsigned kChunkWords = kWarp;
constexpr unsigned kChunk = kChunkWords * kWordBits;

// Threads that share the kept boxes out for one candidate.
constexpr unsigned kCompareShares = 4;
constexpr unsigned kCompareThreads = kWordBits * kCompareShares;

// Rows that a block compares with one word of columns.
constexpr unsigned kOverlapRows = 256;

constexpr unsigned kGatherThreads = 128;

struct Level {
    DeviceLevel outputs;
    CellGrid grid;
    std::uint32_t begin;  // index of its first anchor
    std::uint32_t end;
    float sizes[kMaxSizesPerLevel];
};

// What the kernels of one call share: the task, its buffers, its results.
struct Problem {
    Level levels[kMaxLevels];
    std::uint32_t anchors;  // of an image
    std::uint32_t batch_size;
    std::uint32_t order_limit;  // candidates of an image that enter suppression
    std::uint32_t keep_limit;   // faces that leave it
    std::uint32_t chunk_rows;   // of a chunk, in whole words; fewer than kChunk where order_limit is
    bool probabilities;
    float scan_bound;
    float score_bound;
    float iou_threshold;
    Variances variances;

    std::uint32_t* found;         // (batch_size)
    std::uint64_t* keys;          // (batch_size, anchors), `found` of them in use
    std::uint64_t* ordered_keys;  // (batch_size, order_limit)
    float4* ordered_boxes;        // the same; xyxy
    float* ordered_areas;         // the same; 0: overlaps nothing, below 0: the box is not finite
    std::uint64_t* removed;       // (batch_size, kChunkWords): bits of the candidates of a chunk
    std::uint64_t* overlap;  // (batch_size, chunk_rows, kChunkWords): bits of the later ones that each meets
    std::uint32_t* kept;     // (batch_size, keep_limit): places in the order
    std::uint32_t* kept_count;  // (batch_size)

    std::int32_t* offsets;  // (batch_size + 1)
    float* rows;            // (batch_size * keep_limit, kFaceFloats)
};

// CUDA before 12.1 passes no more to a kernel.
static_assert(sizeof(Problem) + sizeof(unsigned) <= 4096);

}  // namespace retinaface::cuda
