# mw_room(NAME SOURCES... DEPS...): one static library per room, so that the arrows between
# rooms are link lines. The include lines are held to the same table by tests/lint/layers.
function(mw_room name)
  cmake_parse_arguments(R "" "" "SOURCES;DEPS;LIBS" ${ARGN})
  add_library(mw_${name} STATIC ${R_SOURCES})
  target_link_libraries(mw_${name} PUBLIC mw_flags)
  foreach(d ${R_DEPS})
    target_link_libraries(mw_${name} PUBLIC mw_${d})
  endforeach()
  target_link_libraries(mw_${name} PRIVATE ${R_LIBS})
endfunction()
