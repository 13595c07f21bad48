# Included by CMake at llama.cpp's project(): of its programs only llama-server is built, which is half of the compilation.
function(keep_server)
  foreach(folder tools/batched-bench tools/gguf-split tools/imatrix tools/llama-bench tools/completion tools/perplexity
          tools/quantize tools/cli tools/tokenize tools/tts tools/cvector-generator tools/export-lora tools/fit-params
          tools/results)
    if(IS_DIRECTORY ${CMAKE_SOURCE_DIR}/${folder})
      get_property(targets DIRECTORY ${CMAKE_SOURCE_DIR}/${folder} PROPERTY BUILDSYSTEM_TARGETS)
      foreach(target IN LISTS targets)
        set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL ON)
      endforeach()
    endif()
  endforeach()
endfunction()
if(NOT keep_server_deferred)
  set(keep_server_deferred ON CACHE INTERNAL "once, at the end of the outermost list")
  cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL keep_server)
endif()
