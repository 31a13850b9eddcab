// What a request's neighborhoods are written into: growing columns that numpy later sees without a copy.
#pragma once

#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "sampler_rows.hpp"

namespace nowgraph {

// A growing array that is never zeroed. Callers reserve a whole step ahead and write by pointer.
template <class T>
class Column {
 public:
  Column() = default;
  Column(Column&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(other.size_), capacity_(other.capacity_) {}
  Column(const Column&) = delete;
  Column& operator=(const Column&) = delete;
  ~Column() { std::free(data_); }

  NOWGRAPH_INLINE void reserve(std::size_t capacity) {
    if (__builtin_expect(capacity > capacity_, 0)) grow(capacity);
  }
  NOWGRAPH_INLINE void push(T value) {
    reserve(size_ + 1);
    data_[size_++] = value;
  }
  // Room for `count` more values, counted as written.
  NOWGRAPH_INLINE T* extend(std::size_t count) {
    reserve(size_ + count);
    T* start = data_ + size_;
    size_ += count;
    return start;
  }
  NOWGRAPH_INLINE T* data() { return data_; }
  NOWGRAPH_INLINE const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::span<const T> span() const { return {data_, size_}; }
  NOWGRAPH_INLINE void resize(std::size_t size) { size_ = size; }  // within the capacity
  NOWGRAPH_INLINE T& operator[](std::size_t i) { return data_[i]; }
  NOWGRAPH_INLINE const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  void grow(std::size_t wanted) {
    std::size_t capacity = capacity_ < 64 ? 64 : capacity_;
    while (capacity < wanted) capacity *= 2;
    T* data = static_cast<T*>(std::realloc(data_, capacity * sizeof(T)));
    if (data == nullptr) throw std::bad_alloc();
    data_ = data;
    capacity_ = capacity;
  }
  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
};

// The cells of the nodes of one table, row-major; how many columns of each kind is the table's.
struct GatheredTable {
  Column<i32> node;
  Column<double> numerical;
  Column<i64> timestamp;
  Column<i32> coded;
  Column<float> embedding;
  Column<u8> boolean;

  void clear() {
    node.resize(0);
    numerical.resize(0);
    timestamp.resize(0);
    coded.resize(0);
    embedding.resize(0);
    boolean.resize(0);
  }
};

// The neighborhoods of one request, seed after seed, each seed first and then breadth first.
struct Sample {
  // Nodes.
  Column<u8> table, hop;
  Column<i64> row, event_time_us, known_time_us;
  Column<i32> parent, version;
  Column<i16> link;
  // Edges, those to rows already reached included.
  Column<i32> edge_source, edge_target;
  Column<i16> edge_link;
  // Seeds.
  Column<i64> seed_offset, edge_offset, cutoff_time_us;
  std::vector<GatheredTable> gathered;
  // Strings of seeds that the graph has never stored; the coded cell -1 - k is the string k.
  std::vector<std::string> unseen;
  // The graph's position that every neighborhood of the request saw; offsets in the order of the graph's partitions.
  i64 generation = 0;
  u64 sequence = 0;
  i64 watermark_us = ALWAYS_US;
  Column<i64> offsets;

  void clear(u32 tables) {
    set_nodes(0);
    set_edges(0);
    seed_offset.resize(0);
    edge_offset.resize(0);
    cutoff_time_us.resize(0);
    gathered.resize(tables);
    for (GatheredTable& one : gathered) one.clear();
    unseen.clear();
  }
  NOWGRAPH_INLINE void reserve_nodes(std::size_t nodes) {
    table.reserve(nodes);
    hop.reserve(nodes);
    row.reserve(nodes);
    event_time_us.reserve(nodes);
    known_time_us.reserve(nodes);
    parent.reserve(nodes);
    version.reserve(nodes);
    link.reserve(nodes);
  }
  NOWGRAPH_INLINE void reserve_edges(std::size_t edges) {
    edge_source.reserve(edges);
    edge_target.reserve(edges);
    edge_link.reserve(edges);
  }
  NOWGRAPH_INLINE void set_nodes(std::size_t nodes) {
    table.resize(nodes);
    hop.resize(nodes);
    row.resize(nodes);
    event_time_us.resize(nodes);
    known_time_us.resize(nodes);
    parent.resize(nodes);
    version.resize(nodes);
    link.resize(nodes);
  }
  NOWGRAPH_INLINE void set_edges(std::size_t edges) {
    edge_source.resize(edges);
    edge_target.resize(edges);
    edge_link.resize(edges);
  }
};

// Pins the reader and says in the sample where: the stream positions belong to the very state that is pinned.
inline Snapshot pin_at(Reader& reader, Sample& sample) {
  const GraphHeader& graph = reader.graph();
  const auto published = [](const auto& value) {
    using Value = std::remove_cvref_t<decltype(value)>;
    return reinterpret_cast<const std::atomic<Value>*>(&value)->load(std::memory_order_acquire);
  };
  for (;;) {
    const Snapshot snapshot = reader.pin();
    const u64 turn = graph.turn.load(std::memory_order_acquire);
    const PublishedState& state = graph.published[turn & 1];
    const u32 partitions = published(state.partition_count);
    sample.offsets.resize(0);
    for (u32 i = 0; i < partitions; ++i) sample.offsets.push(published(state.offsets[i]));
    sample.watermark_us = published(state.watermark_us);
    sample.generation = snapshot.generation;
    sample.sequence = published(state.sequence);
    if (sample.sequence == snapshot.sequence && graph.turn.load(std::memory_order_seq_cst) == turn) return snapshot;
  }
}

// Results to write into again, so that a steady stream of requests allocates nothing. Python may let go of one on any
// thread, even after what made it is gone.
template <class Result>
class Pool {
 public:
  static constexpr std::size_t KEPT_MAX = 2;

  std::unique_ptr<Result> take() {
    std::lock_guard<std::mutex> guard(mutex_);
    if (kept_.empty()) return std::make_unique<Result>();
    std::unique_ptr<Result> result = std::move(kept_.back());
    kept_.pop_back();
    return result;
  }
  void give_back(std::unique_ptr<Result> result) {
    std::lock_guard<std::mutex> guard(mutex_);
    if (kept_.size() < KEPT_MAX) kept_.push_back(std::move(result));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Result>> kept_;
};

using SamplePool = Pool<Sample>;

}  // namespace nowgraph
