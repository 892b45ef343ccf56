// Reads each Nextflow configuration given as an argument with Groovy's ConfigSlurper and prints
// one JSON list. Amounts such as 64.GB become text, closures the word "closure"; an errorStrategy
// becomes the list of the exit codes that it retries.
import groovy.json.JsonOutput

['MB', 'GB', 'm', 'h', 'd'].each { unit ->
    Integer.metaClass."get${unit.capitalize()}" = { -> "${delegate}.${unit}".toString() }
    Integer.metaClass."get${unit}" = { -> "${delegate}.${unit}".toString() }
}

def retried = { strategy ->
    ((0..255) + (50001..50006)).findAll { code ->
        strategy.delegate = [task: [exitStatus: code]]
        strategy.resolveStrategy = Closure.DELEGATE_FIRST
        strategy() == 'retry'
    }
}

def plain
plain = { value ->
    if (value instanceof Map) {
        return value.collectEntries { key, item ->
            def isStrategy = key == 'errorStrategy' && item instanceof Closure
            [(key.toString()): isStrategy ? retried(item) : plain(item)]
        }
    }
    if (value instanceof List) {
        return value.collect { plain(it) }
    }
    return value instanceof Closure ? 'closure' : value
}

def slurper = new ConfigSlurper()
def read = args.collect { path -> plain(slurper.parse(new File(path).getText('UTF-8'))) }
println JsonOutput.toJson(read)
