#include "operations.hpp"

namespace bench {

const std::vector<Entry>& operations() {
    static const std::vector<Entry> all = {
        {"anchors 640x640", "anchors", make_anchors},
        {"decode_boxes 640x640", "anchors", make_decode_boxes},
        {"decode_landmarks 640x640", "anchors", make_decode_landmarks},
        {"nms crowd", "candidates", make_nms_crowd},
        {"nms sparse", "candidates", make_nms_sparse},
        {"postprocess 640x640, crowd", "anchors", make_postprocess},
        {"postprocess 3840x2160, quiet", "anchors", make_postprocess_scan},
        {"match_boxes", "pairs", make_matching},
        {"vote_boxes", "candidates", make_vote},
        {"network 640x480", "pixels", make_network},
    };
    return all;
}

}  // namespace bench
