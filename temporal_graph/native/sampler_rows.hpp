// The rows of a table as one pinned request sees them: the way from index to record with everything loaded once.
#pragma once

#include "decode.hpp"
#include "reader.hpp"

namespace nowgraph {

using i16 = std::int16_t;

struct TableRows {
  const TableHeader* header;
  const u64* chunks;  // of the directory that held when the request was pinned: covers every row below the limit
  const char* base;
  u32 stride;
  u32 limit;
  u32 version_offset;
  u32 event_offset;
  Shape shape;      // as wide as anything this request may see
  bool has_columns;
  bool one_line;    // no record lies across two cache lines

  TableRows(const Reader& reader, u32 table, const Snapshot& snapshot)
      : header(&reader.table(table)),
        chunks(reader.arena().at<u64>(header->rows.directory.load(std::memory_order_acquire))),
        base(reader.arena().at<char>(0)),
        stride(header->stride),
        limit(snapshot.row_limit[table]),
        version_offset(header->version_offset),
        event_offset(header->event_offset),
        shape(header->shape.load(std::memory_order_acquire)),
        has_columns(header->column_count > 0),
        one_line(64 % stride == 0) {}

  // Whether every row shows the same, whatever the cut-off, so that a parent's record need not be read to show it.
  NOWGRAPH_INLINE bool uniform() const { return shape == Shape::bare || shape == Shape::timeless; }
  NOWGRAPH_INLINE Visible shown_by_all() const {
    const bool bare = shape == Shape::bare;
    return {bare ? State::bare : State::visible, bare ? -1 : 0, ALWAYS_US, ALWAYS_US};
  }

  // Whether a row that is reached has cells to gather.
  NOWGRAPH_INLINE bool shows_cells() const { return has_columns && shape != Shape::bare; }

  // `row` must be below the limit.
  NOWGRAPH_INLINE const char* record(u32 row) const {
    return base + chunks[row >> CHUNK_ROWS_LOG2] + static_cast<u64>(row & (CHUNK_ROWS - 1)) * stride;
  }
  NOWGRAPH_INLINE u32 head(const char* record) const {
    return reinterpret_cast<const std::atomic<u32>*>(record + version_offset)->load(std::memory_order_acquire);
  }
  // The clocks and the version head, which may lie across two lines, and the list words before them where the next hop
  // will ask for them.
  NOWGRAPH_INLINE void prefetch_record(const char* record, bool lists_next) const {
    prefetch(record + event_offset);
    if (one_line) return;
    prefetch(record + version_offset);
    if (lists_next) prefetch(record);
  }
};

// The row that an event names, as far as this request may see it, or NONE.
inline u32 row_of(const Reader& reader, const KeyValue& key, const TableRows& rows) {
  if (!key.present) return NONE;
  const u32 row = key.integer ? reader.find(*rows.header, key.number) : reader.find(*rows.header, key.bytes);
  return row < rows.limit ? row : NONE;
}

}  // namespace nowgraph
