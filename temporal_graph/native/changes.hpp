// Which rows of a table changed since a reader looked last: from then on the graph says something else of them.
//
//   the table's counts of chained versions -> heads written since -> rows and the times from which they show another state
#pragma once

#include "reader.hpp"
#include "sampler_sample.hpp"

namespace nowgraph {

// Up to where a table's changes were told. Only of the generation that it was taken from.
struct ChangeMark {
  u32 changes;   // TableHeader's counts
  u16 late;
  u32 unit;      // versions that were not told are of units from here on
  u64 sequence;  // versions up to here were told
};

// Rows in order, each with the distinct visible times of its versions from the first new one on, ascending.
struct RowChanges {
  Column<i64> row, visible_time_us;
  ChangeMark mark;
};

// Since when nothing was told.
ChangeMark first_mark(const TableHeader& table);
// Whether anything was chained since, published or not: two loads.
bool has_changed(const TableHeader& table, const ChangeMark& since);
// Appends the rows with versions that the snapshot may see and found.mark did not, or whose versions an erasure wrote
// anew, and moves the mark on. A look at each row's head; at every version of the table where one came behind a newer one
// of its row. The reader must be pinned.
void changed_rows(const Reader& reader, const Snapshot& snapshot, const TableHeader& table, u32 row_limit,
                  RowChanges& found);

}  // namespace nowgraph
