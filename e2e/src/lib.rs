//! The end-to-end suites, in `tests/`: whole clusters made by `weft-lab`, and the rules of the workspace's
//! layout. Beside them are the clusters of other makers (`kind/`, `vagrant/`) and what the benchmarks share
//! (`bench/`).
