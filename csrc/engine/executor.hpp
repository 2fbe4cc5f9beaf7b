// Runs the tasks of a plan.
#pragma once

#include <cstddef>

#include "engine/kernels/kernels.hpp"
#include "engine/plan.hpp"
#include "retinaface/engine.hpp"

namespace retinaface::engine {

// All that the tasks of one call share. They write to disjoint parts of the arena and of the raw outputs.
struct Call {
    const EngineKernels* kernels;
    const PackedModel* model;
    const Plan* plan;
    ImageView image;
    float mean[3];           // in the order of the image's channels
    float* arena;            // plan->arena_floats
    float* scratch;          // plan->scratch_floats for each thread
    const float* zeros;      // plan->zeros_floats
    float* scores[kLevels];  // class scores, (cells, 2 * anchors)
    const RawLevel* raw;     // of plan->all_deltas
};

void run_task(const Call& call, const Task& task, std::size_t thread) noexcept;

// Raw deltas at `count` cells of a level: of the first `panels` panels of 16 (boxes of all anchors, then
// landmarks), cell i at out[(panel * 2 + half) * 8 * count + 8 * i]. `gathered` has room for 8 * count floats
// of each block.
void deltas_at(const Call& call, std::size_t level, const std::size_t* cells, std::size_t count,
               std::size_t panels, float* gathered, float* out) noexcept;

}  // namespace retinaface::engine
