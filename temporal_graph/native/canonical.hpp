// The graph as one number that does not know about indices, order of arrival, batches or partitions.
#pragma once

#include <string>

#include "erasures.hpp"
#include "reader.hpp"

namespace nowgraph {

// 32 hex digits over every row's key, versions and link lists, and over what is erased. The writer must be idle.
std::string canonical_hash(const Reader& reader, const Erasures& erasures = {});

// Whether a list entry stands for a link interval of its child: entries that later news made untrue stay in the list.
bool entry_holds(const Reader& reader, const LinkHeader& link, u32 parent_row, const Entry& entry);

}  // namespace nowgraph
