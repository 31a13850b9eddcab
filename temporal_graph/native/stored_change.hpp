// A stored version as the change that it came from, so that it can be applied again, to this graph or to another.
#pragma once

#include "decode.hpp"
#include "reader.hpp"

namespace nowgraph {

// The key of a row. Its bytes are the arena's.
KeyValue stored_key(const Reader& reader, const TableHeader& table, u32 row);

// Fills in operation, clocks and cells of one of the row's versions; `cells[i]` is where its i-th cell (links after
// columns) stands in the change.
void stored_change(const Reader& reader, const TableHeader& table, const char* record, const Reader::VersionKey& version,
                   const std::vector<u32>& cells, RowChange& change);

}  // namespace nowgraph
