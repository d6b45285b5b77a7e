"""Which recipe of MMDetection the benchmarks of training are about."""

ROW = "mocov2-mask-rcnn-r50-fpn-1x"
