#include "retinaface/assignment.hpp"

#include <algorithm>
#include <array>
#include <limits>

namespace retinaface {

namespace {

// Of the finest level, 16 cells with two anchors each. Of 16, 32, 64 and 128 the fastest at 16,800 anchors;
// at 102,300, three to a cell, 64 is as fast. Without blocks, 500 faces take 13 times as long.
constexpr std::size_t kBlock = 32;
constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

using BlockOverlaps = std::array<float, kBlock>;

// The sides of one block lie together.
struct BlockSides {
    float* x1;
    float* y1;
    float* x2;
    float* y2;
    float* area;
};

BlockSides block_sides(float* sides, std::size_t block) noexcept {
    float* const first = sides + 5 * kBlock * block;
    return {first, first + kBlock, first + 2 * kBlock, first + 3 * kBlock, first + 4 * kBlock};
}

// Places behind the last anchor hold a point, which has no IoU > 0. Bounds are those of what is not NaN.
void arrange(const float* anchors, std::size_t n, AssignmentWorkspace& workspace) noexcept {
    constexpr float kFar = std::numeric_limits<float>::infinity();
    for (std::size_t block = 0; block * kBlock < n; ++block) {
        const BlockSides sides = block_sides(workspace.sides.data(), block);
        std::fill_n(sides.x1, 5 * kBlock, 0.0F);
        float* const bounds = workspace.bounds.data() + 4 * block;
        float low_x = kFar;
        float low_y = kFar;
        float high_x = -kFar;
        float high_y = -kFar;
        const std::size_t count = std::min(kBlock, n - block * kBlock);
        for (std::size_t i = 0; i < count; ++i) {
            const float* const anchor = anchors + 4 * (block * kBlock + i);
            const float half_width = anchor[2] * 0.5F;
            const float half_height = anchor[3] * 0.5F;
            sides.x1[i] = anchor[0] - half_width;
            sides.y1[i] = anchor[1] - half_height;
            sides.x2[i] = anchor[0] + half_width;
            sides.y2[i] = anchor[1] + half_height;
            sides.area[i] = (sides.x2[i] - sides.x1[i]) * (sides.y2[i] - sides.y1[i]);
            low_x = sides.x1[i] < low_x ? sides.x1[i] : low_x;
            low_y = sides.y1[i] < low_y ? sides.y1[i] : low_y;
            high_x = sides.x2[i] > high_x ? sides.x2[i] : high_x;
            high_y = sides.y2[i] > high_y ? sides.y2[i] : high_y;
        }
        bounds[0] = low_x;
        bounds[1] = low_y;
        bounds[2] = high_x;
        bounds[3] = high_y;
    }
}

bool touches(const float* bounds, const float* face) noexcept {
    return (bounds[2] > face[0]) & (bounds[0] < face[2]) & (bounds[3] > face[1]) & (bounds[1] < face[3]);
}

struct Face {
    explicit Face(const float* xyxy) noexcept : x1(xyxy[0]), y1(xyxy[1]), x2(xyxy[2]), y2(xyxy[3]) {}

    float x1;
    float y1;
    float x2;
    float y2;
};

float intersection_of(const BlockSides& sides, std::size_t i, const Face& face) noexcept {
    const float width = std::min(sides.x2[i], face.x2) - std::max(sides.x1[i], face.x1);
    const float height = std::min(sides.y2[i], face.y2) - std::max(sides.y1[i], face.y1);
    return std::max(width, 0.0F) * std::max(height, 0.0F);
}

// NaN where the IoU is undefined, which no comparison takes for an overlap.
void overlaps_of(const BlockSides& sides, const float* face_xyxy, BlockOverlaps& overlaps) noexcept {
    const Face face(face_xyxy);
    const float area = (face.x2 - face.x1) * (face.y2 - face.y1);
    for (std::size_t i = 0; i < kBlock; ++i) {
        const float intersection = intersection_of(sides, i, face);
        overlaps[i] = intersection / ((sides.area[i] + area) - intersection);
    }
}

// The choice of a face by a mask and not by a condition: GCC 12 makes no vector code of two choices by one
// comparison, which takes up to 1.4 times as long.
void raise_best(const BlockOverlaps& overlaps, std::int32_t face, float* best,
                std::int32_t* best_face) noexcept {
    for (std::size_t i = 0; i < kBlock; ++i) {
        const std::int32_t higher = -static_cast<std::int32_t>(overlaps[i] > best[i]);
        best[i] = std::max(best[i], overlaps[i]);
        best_face[i] = (higher & face) | (~higher & best_face[i]);
    }
}

bool any_above(const BlockOverlaps& overlaps, float value) noexcept {
    int above = 0;
    for (std::size_t i = 0; i < kBlock; ++i) above |= static_cast<int>(overlaps[i] > value);
    return above != 0;
}

// Enters one face: its overlaps raise the best of its anchors. Returns its own best anchor, kNone without
// any, if the IoU is >= least.
std::size_t enter(const float* face, std::int32_t row, std::size_t blocks, float least,
                  AssignmentWorkspace& workspace) noexcept {
    std::size_t best_anchor = kNone;
    float most = 0.0F;
    BlockOverlaps overlaps;
    for (std::size_t block = 0; block < blocks; ++block) {
        if (!touches(workspace.bounds.data() + 4 * block, face)) continue;
        overlaps_of(block_sides(workspace.sides.data(), block), face, overlaps);
        raise_best(overlaps, row, workspace.best.data() + block * kBlock,
                   workspace.best_face.data() + block * kBlock);
        if (!any_above(overlaps, most)) continue;
        for (std::size_t i = 0; i < kBlock; ++i) {
            if (!(overlaps[i] > most)) continue;
            most = overlaps[i];
            best_anchor = block * kBlock + i;
        }
    }
    return most >= least ? best_anchor : kNone;
}

void leave_out_near(const float* face, std::size_t n, float negative_iou, AssignmentWorkspace& workspace,
                    std::int64_t* assigned) noexcept {
    BlockOverlaps overlaps;
    float highest = 0.0F;
    for (std::size_t block = 0; block * kBlock < n; ++block) {
        if (!touches(workspace.bounds.data() + 4 * block, face)) continue;
        overlaps_of(block_sides(workspace.sides.data(), block), face, overlaps);
        for (const float overlap : overlaps) highest = overlap > highest ? overlap : highest;
    }
    const float least = std::min(negative_iou, 0.5F * highest);
    for (std::size_t block = 0; block * kBlock < n; ++block) {
        if (!touches(workspace.bounds.data() + 4 * block, face)) continue;
        const BlockSides sides = block_sides(workspace.sides.data(), block);
        overlaps_of(sides, face, overlaps);
        const std::size_t count = std::min(kBlock, n - block * kBlock);
        for (std::size_t i = 0; i < count; ++i) {
            std::int64_t& value = assigned[block * kBlock + i];
            if (value != kNegativeAnchor || !(overlaps[i] > 0.0F)) continue;
            const bool is_near = overlaps[i] >= least;
            const bool is_inside = intersection_of(sides, i, Face(face)) >= 0.5F * sides.area[i];
            if (is_near || is_inside) value = kIgnoredAnchor;
        }
    }
}

}  // namespace

void assign_anchors(const float* anchors_cxcywh, std::size_t n, const float* faces_xyxy,
                    const unsigned char* ignored, std::size_t faces, const AssignmentThresholds& thresholds,
                    AssignmentWorkspace& workspace, std::int64_t* assigned) {
    const std::size_t blocks = (n + kBlock - 1) / kBlock;
    workspace.sides.resize(5 * kBlock * blocks);
    workspace.bounds.resize(4 * blocks);
    workspace.best.assign(kBlock * blocks, 0.0F);
    workspace.best_face.assign(kBlock * blocks, -1);
    workspace.best_anchor.assign(faces, kNone);
    arrange(anchors_cxcywh, n, workspace);

    const auto is_ignored = [ignored](std::size_t face) { return ignored != nullptr && ignored[face] != 0; };
    for (std::size_t face = 0; face < faces; ++face) {
        if (is_ignored(face)) continue;
        workspace.best_anchor[face] = enter(faces_xyxy + 4 * face, static_cast<std::int32_t>(face), blocks,
                                            thresholds.force_min_iou, workspace);
    }
    for (std::size_t i = 0; i < n; ++i) {
        const float best = workspace.best[i];
        assigned[i] = best >= thresholds.positive_iou   ? workspace.best_face[i]
                      : best >= thresholds.negative_iou ? kIgnoredAnchor
                                                        : kNegativeAnchor;
    }
    for (std::size_t face = 0; thresholds.force && face < faces; ++face) {
        const std::size_t anchor = workspace.best_anchor[face];
        if (anchor != kNone) assigned[anchor] = static_cast<std::int64_t>(face);
    }
    for (std::size_t face = 0; face < faces; ++face) {
        if (is_ignored(face)) {
            leave_out_near(faces_xyxy + 4 * face, n, thresholds.negative_iou, workspace, assigned);
        }
    }
}

}  // namespace retinaface
